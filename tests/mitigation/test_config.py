"""Settings of a training: flags, file, preset."""

import pytest

from orbench.errors import UsageError
from orbench.mitigation.config import PRESETS, Dpo, Raft, Sft, make_config

FOLDERS = {"data": "pairs", "model": "model", "out": "out"}


def test_a_flag_wins_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "dpo.yaml"
    file.write_text("preset: safe-to-serve\nepochs: 3\nbeta: 0.5\n", encoding="utf-8")
    config = make_config(Dpo, {**FOLDERS, "beta": 0.2, "epochs": None}, file=file)
    assert (config.beta, config.epochs, config.lora_rank) == (0.2, 3.0, 8)


def test_numbers_as_yaml_reads_them_are_numbers(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("learning_rate: 5e-5\nlora_rank: 4\nlora_targets: q_proj,v_proj\n", encoding="utf-8")
    config = make_config(Sft, FOLDERS, file=file)
    assert config.learning_rate == 5e-5
    assert config.lora_targets == "q_proj,v_proj"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in PRESETS.items() for name in names])
def test_every_preset_is_one(kind, name):
    config = make_config(kind, FOLDERS, preset=name)
    assert config.lora_rank in (4, 8)


def test_the_raft_preset_is_that_of_safe_to_serve():
    config = make_config(Raft, FOLDERS, preset="safe-to-serve-iterated")
    assert (config.samples, config.temperature, config.top_p, config.max_tokens) == (8, 0.85, 0.95, 120)
    assert (config.prompts, config.iterations, config.learning_rate) == (100, 5, 1e-4)


@pytest.mark.parametrize(
    ("given", "preset", "text"),
    [
        ({"beta": -1.0}, None, "beta"),
        ({"learning_rate": "much"}, None, "--learning-rate"),
        ({"loss": "best"}, None, "loss"),
        ({"no_such": 1}, None, "no_such"),
        ({}, "porover", "safe-to-serve"),
        ({"data": None}, None, "data"),
        ({"learning_rate": float("inf")}, None, "--learning-rate is inf"),
        ({"sft_weight": float("nan")}, None, "--sft-weight"),
        ({"seed": -1}, None, "seed"),
        ({"containment": 0.0}, None, "containment"),
    ],
    ids=["negative", "text", "name", "unknown", "preset", "missing", "inf", "nan", "seed", "containment"],
)
def test_what_cannot_be_meant_is_named(given, preset, text):
    with pytest.raises(UsageError, match=text):
        make_config(Dpo, {**FOLDERS, **given}, preset=preset)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"loss": "kto", "sft_weight": 1.0}, "--sft-weight"),
        ({"loss": "kto", "batch_size": 1}, "--batch-size"),
        ({"safety_rows": 5}, "--safety-rows without --safety"),
        ({"replay_rows": 5}, "--replay-rows without --replay"),
        ({"validation": "v.csv", "checkpoints": 0}, "--validation with --checkpoints 0"),
        ({"lora_alpha": 8.0}, "--lora-alpha"),
    ],
    ids=["kto", "kto of one", "safety", "replay", "validation", "lora"],
)
def test_a_setting_that_would_have_no_effect_is_refused(given, text):
    with pytest.raises(UsageError, match=text):
        make_config(Dpo, {**FOLDERS, **given})


def test_adapters_of_a_preset_or_a_file_can_be_switched_off(tmp_path):
    file = tmp_path / "dpo.yaml"
    file.write_text("lora_rank: 8\nlora_alpha: 32\n", encoding="utf-8")
    for options in ({"preset": "safe-to-serve"}, {"file": file}):
        assert make_config(Dpo, {**FOLDERS, "lora_rank": 0}, **options).lora_rank == 0


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "\xff"], ids=["list", "broken", "bytes"])
def test_a_file_that_holds_no_settings(tmp_path, content):
    file = tmp_path / "settings.yaml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"settings\.yaml"):
        make_config(Sft, FOLDERS, file=file)


@pytest.mark.parametrize(("name", "value"), [("max_cost", 1.0), ("base_url", "http://localhost"), ("rpm", 5.0)])
def test_terms_of_a_judge_want_a_judge(name, value):
    given = {"data": "d", "model": "m", "out": "o", name: value}
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is for judges"):
        make_config(Raft, given)
    assert getattr(make_config(Raft, {**given, "reward": "openai/x"}), name) == value
    assert getattr(make_config(Sft, {**given, "judge": "openai/x"}), name) == value


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Sft, {"data": None}, "no --data given"),
        (Sft, {"batch_size": 0}, "--batch-size: expected `int` >= 1"),
        (Dpo, {"loss": "foo"}, "--loss: .*'foo': there are sigmoid, ipo"),
        (Sft, {"dtype": "float64"}, "--dtype: .*: there are auto, float32, bfloat16"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named_as_it_is_given(kind, given, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        make_config(kind, {**FOLDERS, **given})


def test_a_setting_of_a_file_is_named_with_the_file(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("learning_rate: fast\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"sft\.yaml: --learning-rate: expected"):
        make_config(Sft, FOLDERS, file=file)
