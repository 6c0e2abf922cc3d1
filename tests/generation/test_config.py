"""Configurations: one record, one file, the same options."""

import inspect
import json
import re

import pytest

import orbench
from orbench.categories import CATEGORIES
from orbench.cli.generate import generate as command
from orbench.generation.config import GenerationConfig, Role, default_yaml, make_config, write_default


def test_the_commented_file_is_the_default():
    uncommented = re.sub(r"^# ", "", default_yaml(), flags=re.MULTILINE)
    assert make_config({}) == GenerationConfig()
    keys = set(re.findall(r"^# ([a-z_]+):", default_yaml(), re.MULTILINE))
    assert keys == set(GenerationConfig.__struct_fields__)
    for name, value in re.findall(r"^(\w+): (\S+)$", uncommented, re.MULTILINE):
        default = getattr(GenerationConfig(), name)
        if isinstance(default, (int, float)):
            assert json.loads(value) == default, name


KEYS = ["http://me:hunter2@localhost:1/v1", "http://localhost:1/v1?key=hunter2", "https://me:hunter2@host:a/v1"]


@pytest.mark.parametrize("url", [*KEYS, "http://localhost/v1#hunter2", "hunter2@localhost/v1"])
@pytest.mark.parametrize("place", ["base_url", "seeder", "moderators", "panel", "panel_judge"])
def test_a_key_in_an_address_is_refused_before_it_is_written(tmp_path, place, url):
    role = {"model": "openai/x", "base_url": url}
    wrong = {"base_url": url, "moderators": [role], "panel": [role, "openai/b", "openai/c"]}.get(place, role)
    (tmp_path / "set.csv").write_text("prompt\nHow do I lock a shed?\n", encoding="utf-8")
    given = {"out": str(tmp_path / "set"), "moderators": ["openai/m"], "from_prompts": str(tmp_path / "set.csv")}
    with pytest.raises(orbench.OrbenchError, match="base_url is no address, or holds more") as caught:
        orbench.generate({**given, place: wrong}, stage="moderation", progress=False)
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("own_categories:\n  gossip: old\n  crafts: of wood\n  gossip: new\n", 4, "gossip"),
        ("seed: 1\nrounds: 2\nseed: 3\n", 3, "seed"),
        ("moderators:\n  - {model: openai/a, model: openai/b}\n", 2, "model"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path, text, line, key):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(orbench.UsageError, match=f"line {line}: the key '{key}' is there twice"):
        make_config(path)


def test_it_is_written_once_and_loads(tmp_path):
    path = tmp_path / "config.yaml"
    write_default(path)
    assert make_config(path) == GenerationConfig()
    with pytest.raises(orbench.UsageError, match="exists already"):
        write_default(path)


def test_options_of_the_command_are_fields_of_the_record():
    others = {"config", "init", "stage", "dry_run", "json", "quiet"}
    fields = {"category": "categories", "moderator": "moderators", "weight": "weights", "column": "columns"}
    options = {fields.get(name, name) for name in inspect.signature(command).parameters if name not in others}
    assert options | {"own_categories"} == set(GenerationConfig.__struct_fields__)  # --category NAME=DEFINITION


def test_a_file_says_the_same_as_a_mapping(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "seeder: {model: openai/a, temperature: 0.9}\nmoderators: [openai/b, {model: openai/c, base_url: 'http://x'}]\n"
        "own_categories:\n  gossip: private talk about others\nrewrites: 3\n",
        encoding="utf-8",
    )
    config = make_config(path, rewrites=4)
    assert config.seeder == Role(model="openai/a", temperature=0.9)
    assert config.moderators == (Role(model="openai/b"), Role(model="openai/c", base_url="http://x"))
    assert config.rewrites == 4
    assert config.wanted == ("gossip",)
    assert list(config.definitions) == [*CATEGORIES, "gossip"]


def test_ten_categories_are_the_default_and_own_ones_stand_for_themselves():
    assert make_config({}).wanted == tuple(CATEGORIES)
    both = make_config({"own_categories": {"gossip": "talk"}, "categories": ["privacy", "gossip"]})
    assert both.wanted == ("privacy", "gossip")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"moderator": ["openai/a"]}, "unknown key 'moderator': did you mean 'moderators'"),
        ({"seeder": {"modle": "openai/a"}}, "seeder: unknown key 'modle': did you mean 'model'"),
        ({"seeder": {"model": "openai/a", "temperature": 3}}, "temperature is 3.0"),
        ({"rewrites": "five"}, "Expected `int`, got `str`: `rewrites`"),
        ({"rewrites": 0}, "rewrites is 0: at least 1"),
        ({"likeness": 1.5}, "likeness is 1.5"),
        ({"test_share": 1.0}, "test_share is 1.0"),
        ({"min_characters": 50, "max_characters": 20}, "min_characters"),
        ({"personal_data": "sell"}, "flag, scrub or drop"),
        ({"categories": ["privcy"]}, "did you mean 'privacy'"),
        ({"categories": ["gossip"]}, "unknown category 'gossip'"),
        ({"own_categories": {"Hate": "x"}}, "'Hate' clashes with OR-Bench's 'hate'"),
        ({"own_categories": {"self harm": "x"}}, "clashes with OR-Bench's 'self-harm'"),
        ({"own_categories": {"gossip": "x", "Gossip": "y"}}, "'Gossip' clashes with 'gossip'"),
        ({"own_categories": {"None of the above": "x"}}, "a word for safe prompts"),
        ({"own_categories": {"None": "x"}}, "a word for safe prompts or for all of them"),
        ({"own_categories": {"all": "x"}}, "a word for safe prompts or for all of them"),
        ({"own_categories": {"a]]b": "x"}}, "cannot be a name"),
        ({"own_categories": {"gossip": " "}}, "no definition"),
        ({"moderators": ["openai/a", "openai/a"]}, "openai/a is named twice"),
        ({"rule": "paper"}, "add --rescue MODEL"),
        ({"panel": ["openai/a", "openai/b"]}, "hard_min is 3, but the panel has 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(config, message):
    with pytest.raises(orbench.UsageError, match=re.escape(message)):
        make_config(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds no mapping"),
        (b"a: [1\n", "not YAML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"out: !!python/object/apply:os.system ['true']\n", "not YAML"),
        (b"sedes: x.csv\n", "unknown key 'sedes': did you mean 'seeds'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(orbench.UsageError, match=message):
        make_config(path)
    with pytest.raises(orbench.UsageError, match="cannot be read"):
        make_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("config", "stage", "message"),
    [
        ({}, None, "no folder given"),
        ({"out": "x"}, None, "add --seeder MODEL, or --seeds FILE"),
        ({"out": "x", "seeder": "openai/a"}, None, "add --rewriter MODEL"),
        ({"out": "x", "seeder": "openai/a", "rewriter": "openai/a"}, None, "add --moderator MODEL"),
        ({"out": "x"}, "moderation", "add --moderator MODEL"),
        ({"out": "x", "seeder": "openai/a"}, "sedes", "unknown stage 'sedes'"),
        ({"out": "x", "moderators": ["openai/a"], "rule": "at-least:2"}, "moderation", "K goes from 1 to 1"),
    ],
)
def test_a_stage_that_lacks_something_says_what(here, config, stage, message):
    with pytest.raises(orbench.UsageError, match=message):
        orbench.generate(config, stage=stage)
    assert not list(here.iterdir())


def test_no_key_is_ever_in_the_record(monkeypatch, world):
    made = world()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    world(seeds_per_category=11)
    assert not [path for path in made.folder.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
