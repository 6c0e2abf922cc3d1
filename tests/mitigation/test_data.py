"""Rows of a training: what is dropped and counted, what is mixed in, what is never trained on."""

import importlib.util
import json
import shutil

import msgspec
import pytest

from orbench.errors import RunError, UsageError
from orbench.mitigation.config import Dpo, Raft, Sft
from orbench.mitigation.files import Example, assistant, user
from orbench.mitigation.pairs import make_pairs
from orbench.testing import make_tiny_model
from tests.mitigation.conftest import HELPFUL, TOXIC, settings, train

for module in ("trl", "peft", "torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs the extra `train`", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch, TRL and transformers warn of their own affairs


def test_a_text_that_is_a_token_of_the_model_is_not_learnt(made, pairs, tmp_path):
    """`</s>` in a reply would be learnt as the end of a turn."""
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(made[0] / "tiny").eos_token
    rows = [json.loads(line) for line in (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["chosen"][0]["content"] += f" {end} And then?"
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert train(settings(Dpo, made, file, tmp_path, max_steps=1)).dropped == {"special_token": 1}
    examples = [Example(prompt=user(text), completion=assistant(text), kind="safe") for text in ("one", f"two{end}")]
    examples.append(Example(prompt=user("three"), completion=assistant(""), kind="toxic"))
    from orbench.mitigation.trainer import sft

    trained = sft(settings(Sft, made, pairs, tmp_path, out=str(tmp_path / "sft"), max_steps=1), examples)
    assert trained.dropped == {"special_token": 1, "empty_completion": 1}
    assert trained.rows == {"safe": 1}
    assert any("No toxic row" in note for note in trained.notes)


def test_rows_longer_than_the_model_can_read_are_dropped_and_counted(made, pairs, tmp_path):
    long = tmp_path / "long.jsonl"
    rows = [json.loads(line) for line in (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["prompt"][0]["content"] = "word " * 3000
    long.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trained = train(settings(Dpo, made, long, tmp_path, max_steps=1, max_length=4096))
    assert trained.dropped == {"too_long": 1}


def test_pairs_that_say_the_same_are_dropped_and_counted(made, pairs, tmp_path):
    file = tmp_path / "same.jsonl"
    rows = [json.loads(line) for line in (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["rejected"] = rows[0]["chosen"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trained = train(settings(Dpo, made, file, tmp_path, max_steps=1))
    assert trained.dropped == {"chosen_equals_rejected": 1}


def test_rows_that_teach_silence_or_that_the_template_refuses_are_dropped_and_counted(made, pairs, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made[0] / "tiny")
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}"
        + tokenizer.chat_template
    )
    shutil.copytree(made[0] / "tiny", tmp_path / "strict")
    tokenizer.save_pretrained(tmp_path / "strict")
    rows = [json.loads(line) for line in (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["chosen"][0]["content"] = " "
    rows[1]["prompt"].insert(0, {"role": "system", "content": "Be brief."})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = settings(Dpo, made, file, tmp_path, model=str(tmp_path / "strict"), max_steps=1)
    assert train(config).dropped == {"empty_completion": 1, "chat_template_refuses": 1}
    file.write_text(json.dumps(rows[2] | {"prompt": []}), encoding="utf-8")
    with pytest.raises(RunError, match=r"rows\.jsonl, line 1"):
        train(settings(Dpo, made, file, tmp_path, out=str(tmp_path / "other")))


def test_no_row_left_is_an_error_that_says_why(made, pairs, tmp_path):
    with pytest.raises(RunError, match="too_long 70; raise --max-length"):
        train(settings(Dpo, made, pairs, tmp_path, max_length=3))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "chosen.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match=r"no train\.jsonl in it, .*; chosen\.jsonl, which is there, is for align sft"):
        train(settings(Dpo, made, tmp_path / "taken", tmp_path))


def test_data_of_another_model_is_refused_unless_it_is_meant(made, tmp_path):
    _, run = made
    data = make_pairs(run, teacher=lambda prompt: HELPFUL, out=tmp_path / "pairs", validation=0.0, held_out=0.0).folder
    make_tiny_model(tmp_path / "other", steps=0)
    for rows in (data, data / "train.jsonl"):
        with pytest.raises(UsageError, match="other-model"):
            train(settings(Sft, made, rows, tmp_path, model=str(tmp_path / "other")))
    meant = settings(Sft, made, data, tmp_path, model=str(tmp_path / "other"), other_model=True, max_steps=1)
    assert train(meant).finished


def test_a_prompt_to_measure_on_is_never_trained_on(made, tmp_path):
    _, run = made
    data = make_pairs(run, teacher=lambda prompt: HELPFUL, out=tmp_path / "pairs", validation=0.0, held_out=0.0).folder
    stolen = msgspec.json.decode((data / "train.jsonl").read_bytes().splitlines()[0])["prompt"][0]["content"]
    (data / "held_out_prompts.csv").write_text(f"prompt,kind\n{stolen},safe\n", encoding="utf-8")
    for kind, rows in ((Sft, data), (Dpo, data / "train.jsonl")):
        with pytest.raises(RunError, match="one group"):
            train(settings(kind, made, rows, tmp_path))


@pytest.mark.parametrize("kind", [Sft, Dpo, Raft])
def test_a_prompt_of_a_seed_that_is_measured_on_is_never_trained_on(made, pairs, tmp_path, kind):
    """In other words altogether, so that the seed alone tells it."""
    data = tmp_path / "seeded"
    data.mkdir()
    rows = [json.loads(line) for line in (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    (data / "train.jsonl").write_text("".join(json.dumps(row | {"seed_id": "s1"}) + "\n" for row in rows[:5]))
    (data / "held_out_prompts.csv").write_text("prompt,kind,seed_id\nwhy do cats purr,safe,s1\n", encoding="utf-8")
    with pytest.raises(RunError, match="one group"):
        train(settings(kind, made, data, tmp_path))


@pytest.mark.parametrize("name", ["replay", "safety"])
def test_a_row_mixed_in_is_no_prompt_to_measure_on(made, tmp_path, name):
    _, run = made
    data = make_pairs(run, teacher=lambda prompt: HELPFUL, out=tmp_path / "pairs", validation=0.0, held_out=0.0).folder
    (data / "held_out_prompts.csv").write_text("prompt,kind\nwhy do cats purr at night,safe\n", encoding="utf-8")
    row = {
        "prompt": [{"role": "user", "content": "why do cats purr at night"}],
        "completion": [{"role": "assistant", "content": HELPFUL}],
    }
    file = tmp_path / "mixed.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    for kind in (Sft, Dpo):
        with pytest.raises(RunError, match="one group"):
            train(settings(kind, made, data, tmp_path, **{name: str(file)}))


def test_rows_that_dpo_cannot_use_are_counted_and_their_owner_is_told(made, tmp_path):
    """Without a stand-in every refused toxic prompt is unpaired, and DPO alone would quietly unlearn safety."""
    _, run = made
    data = make_pairs(run, teacher=lambda prompt: HELPFUL, out=tmp_path / "pairs", validation=0.0, held_out=0.0).folder
    unpaired = len((data / "unpaired.jsonl").read_bytes().splitlines())
    trained = train(settings(Dpo, made, data, tmp_path, max_steps=1))
    assert unpaired
    assert trained.dropped["unpaired"] == unpaired
    assert any("--loss kto" in note for note in trained.notes)
    assert any("No toxic row" in note for note in trained.notes)
    trained = train(settings(Dpo, made, data, tmp_path, out=str(tmp_path / "kto"), max_steps=1, loss="kto"))
    assert trained.rows["toxic"] == unpaired
    assert not trained.dropped
    assert not any("toxic row" in note for note in trained.notes)


def test_safety_rows_and_general_rows_are_mixed_in_and_counted(made, pairs, tmp_path):
    def write(name, texts, reply):
        path = tmp_path / name
        rows = [
            {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": reply}]}
            for text in texts
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    mixed = {
        "replay": write("general.jsonl", ["bake a cake", "plant a tree", "write a poem"], HELPFUL),
        "safety": write("safety.jsonl", TOXIC[40:60], "I'm sorry, but I can't help with that."),
        "safety_rows": 7,
    }
    for kind in (Sft, Dpo):
        trained = train(settings(kind, made, pairs, tmp_path, out=str(tmp_path / kind.__name__), max_steps=1, **mixed))
        assert trained.rows == {"safe": 40, "toxic": 37, "replay": 3}


def test_safety_rows_without_a_bad_reply_to_set_them_against_are_for_kto(made, tmp_path):
    _, run = made
    data = make_pairs(run, teacher=lambda prompt: HELPFUL, out=tmp_path / "pairs", validation=0.0, held_out=0.0).folder
    turns = {"prompt": [{"role": "user", "content": "insult my neighbour"}]}
    turns["completion"] = [{"role": "assistant", "content": "I'm sorry, but I can't help with that."}]
    (tmp_path / "safety.jsonl").write_text(json.dumps(turns) + "\n", encoding="utf-8")
    config = settings(Dpo, made, data, tmp_path, max_steps=1, safety=str(tmp_path / "safety.jsonl"))
    with pytest.raises(RunError, match=r"--loss kto takes them.*--stand-in"):
        train(config)
    unpaired = len((data / "unpaired.jsonl").read_bytes().splitlines())
    assert train(msgspec.structs.replace(config, loss="kto")).rows["toxic"] == unpaired + 1


@pytest.mark.parametrize(("name", "kind"), [("replay", "toxic"), ("safety", "safe")])
def test_rows_of_the_other_kind_are_not_mixed_in(made, pairs, tmp_path, name, kind):
    """A refusal among general rows would be set over refusals, an answer among safety rows be counted as one."""
    file = tmp_path / "mixed.jsonl"
    turns = {"prompt": [{"role": "user", "content": "bake"}], "completion": [{"role": "assistant", "content": HELPFUL}]}
    file.write_text(f"{json.dumps(turns)}\n{json.dumps(turns | {'kind': kind})}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"row 2: of a {kind} prompt: --{name}"):
        train(settings(Dpo, made, pairs, tmp_path, **{name: str(file)}))
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"mixed\.jsonl: no row in it: --{name}"):
        train(settings(Dpo, made, pairs, tmp_path, **{name: str(file)}))
