"""Training with TRL on a real tiny model: what it learns, which checkpoint is kept, how it goes on."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import orbench
from orbench.errors import RunError
from orbench.mitigation.config import Dpo, Raft, Sft
from orbench.mitigation.pairs import make_pairs
from orbench.report.training import training_table
from orbench.testing import make_tiny_model
from tests.mitigation.conftest import HELPFUL, SAFE, settings, train, validation_file, weights

for module in ("trl", "peft", "torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs the extra `train`", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch, TRL and transformers warn of their own affairs


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
def test_pairs_load_in_trls_trainers_as_they_are(made, pairs, tmp_path, loss):
    """Straight from the file into TRL, with nothing of ours between."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    folder, _ = made
    data = load_dataset("json", data_files=str(pairs / "train.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    kind, config = (KTOTrainer, KTOConfig) if loss == "kto" else (DPOTrainer, DPOConfig)
    arguments = config(
        output_dir=str(tmp_path / "out"), max_steps=1, bf16=False, report_to="none", per_device_train_batch_size=4
    )
    trainer = kind(str(folder / "tiny"), args=arguments, train_dataset=data)
    assert trainer.train().training_loss > 0


def test_unpaired_rows_load_in_trls_kto_trainer_as_they_are(made, tmp_path):
    from datasets import load_dataset
    from trl import KTOConfig, KTOTrainer

    folder, run = made
    data = make_pairs(run, teacher=lambda prompt: HELPFUL, out=tmp_path / "pairs", held_out=0.0, validation=0.0)
    rows = load_dataset(
        "json", data_files=str(data.folder / "unpaired.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    arguments = KTOConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, bf16=False, report_to="none", per_device_train_batch_size=4
    )
    trainer = KTOTrainer(str(folder / "tiny"), args=arguments, train_dataset=rows)
    assert trainer.train().training_loss > 0


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Sft, {}),
        (Sft, {"lora_rank": 4}),
        (Dpo, {}),
        (Dpo, {"lora_rank": 4, "sft_weight": 1.0}),
        (Dpo, {"loss": "kto"}),
        (Raft, {"samples": 2, "prompts": 20, "iterations": 2, "max_steps": 2}),
    ],
    ids=["sft", "sft-lora", "dpo", "dpo-lora", "kto", "raft"],
)
def test_every_method_leaves_a_model_that_can_be_evaluated(made, pairs, tmp_path, kind, given):
    config = settings(kind, made, pairs, tmp_path, **given)
    trained = train(config)
    assert trained.finished
    assert any("too few" in note or "No validation" in note for note in trained.notes)
    result = orbench.evaluate(
        f"hf/{config.out}", splits="sample", limit=10, max_tokens=20, out=tmp_path / "run", progress=False
    )
    assert sum(result.outcomes.values()) == 10
    assert train(config) == trained  # finished: nothing is done again


def test_training_moves_the_model_towards_the_chosen_replies(made, pairs, tmp_path):
    before = share_refused(f"hf/{made[0] / 'tiny'}", tmp_path / "before")
    config = settings(Sft, made, pairs, tmp_path, max_steps=40, learning_rate=3e-3)
    train(config)
    assert share_refused(f"hf/{config.out}", tmp_path / "after") < before - 0.3


def share_refused(model, out):
    prompts = [orbench.Prompt(id=text, text=text, category="x", kind="safe", split="s") for text in SAFE[:40]]
    split = orbench.Split("s", prompts, "here")
    return orbench.evaluate(model, splits=split, out=out, max_tokens=30, progress=False).over_refusal_rate.value


def test_checkpoints_are_scored_and_the_best_of_them_lies_in_the_folder(made, pairs, tmp_path):
    file = validation_file(tmp_path)
    config = settings(Dpo, made, pairs, tmp_path, validation=file, checkpoints=2, max_steps=20)
    trained = train(config)
    assert [score.step for score in trained.scores] == [0, 10, 20]
    assert trained.scores[0].eligible
    eligible = [score for score in trained.scores if score.eligible]
    assert trained.taken == min(eligible, key=lambda score: (score.over_refusal, score.step)).step
    again = orbench.evaluate(
        f"hf/{config.out}", splits=file, max_tokens=config.max_tokens, out=tmp_path / "again", progress=False
    )
    taken = next(score for score in trained.scores if score.step == trained.taken)
    assert again.over_refusal_rate.value == pytest.approx(taken.over_refusal)


def test_an_interrupted_training_goes_on_to_the_same_end(made, pairs, tmp_path, monkeypatch):
    from orbench.mitigation import trainer
    from orbench.mitigation.watch import Watch

    whole = settings(Sft, made, pairs, tmp_path, out=str(tmp_path / "whole"), checkpoints=4)
    expected = train(whole)
    config = settings(Sft, made, pairs, tmp_path, checkpoints=4)

    def interrupt(self, args, state, control=None, **_):
        if control is None or state.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "on_step_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    checkpoints = tmp_path / "out" / "checkpoints"
    assert (checkpoints / "checkpoint-4").is_dir()
    torn = checkpoints / "checkpoint-6"  # as left by a process killed while it wrote: the state comes last
    torn.mkdir()
    (torn / "config.json").write_text("{}", encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_save", interrupt)
        with pytest.raises(KeyboardInterrupt):  # again, when all is learnt and nothing saved
            train(config)
    trained = train(config)
    assert trained.finished
    assert trained.steps == expected.steps
    assert trained.loss == pytest.approx(expected.loss, rel=1e-3)
    assert weights(config.out) == weights(whole.out)
    (checkpoints / "checkpoint-8").mkdir(parents=True)  # killed while it tidied up
    assert train(config) == trained
    assert not checkpoints.exists()


def test_a_judge_that_fails_on_a_checkpoint_ends_nothing_and_chooses_nothing(made, pairs, tmp_path, judge):
    given = {"validation": validation_file(tmp_path), "scorer": "judge", "judge": "python/lately:read"}
    config = settings(Sft, made, pairs, tmp_path, checkpoints=2, max_steps=2, **given)
    judge.left = 215  # 210 for the start, 5 for the first checkpoint
    with pytest.raises(RunError, match=r"judge failed on 205 of 210 replies.*out of order"):
        train(config)
    judge.left = 10**9
    trained = train(config)
    assert [(score.step, score.neither) for score in trained.scores] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert judge.left == 10**9 - 205 - 210  # nothing is asked twice


@pytest.mark.parametrize("lora_rank", [0, 4], ids=["all weights", "lora"])
def test_where_the_start_is_taken_the_last_weights_are_kept(made, pairs, tmp_path, lora_rank):
    """The rule may be wrong for its owner; what a night on eight GPUs made is not thrown away."""
    given = {"validation": validation_file(tmp_path), "patience": 1, "checkpoints": 4, "learning_rate": 1e-2}
    config = settings(Sft, made, pairs, tmp_path, lora_rank=lora_rank, **given)
    trained = train(config)
    assert [score.step for score in trained.scores] == [0, 2]  # patience: the first was no better
    assert (trained.taken, trained.steps) == (0, 2)
    last = f"{made[0] / 'tiny'}+{config.out}/last" if lora_rank else f"{config.out}/last"
    assert trained.notes[-1] == f"The last weights, of step 2, are hf/{last}."
    for model, score in zip((config.out, last), trained.scores, strict=True):
        assert over_refusal(model, config, tmp_path / f"run-{score.step}") == pytest.approx(score.over_refusal)


def over_refusal(model, config, out):
    """Measured anew as checkpoints are."""
    result = orbench.evaluate(
        f"hf/{model}", splits=config.validation, max_tokens=config.max_tokens, out=out, progress=False
    )
    return result.over_refusal_rate.value


def test_adapters_of_a_checkpoint_on_the_way_can_be_taken(made, pairs, tmp_path):
    given = {"validation": validation_file(tmp_path), "containment": 1.0, "neither": 1.0, "checkpoints": 3}
    config = settings(Sft, made, pairs, tmp_path, lora_rank=4, learning_rate=1e-2, max_steps=6, **given)
    trained = train(config)
    best = min(trained.scores, key=lambda score: (score.over_refusal, score.step))
    assert 0 < best.step < 6, "this model learns in four steps"
    assert trained.taken == best.step
    assert over_refusal(config.out, config, tmp_path / "run") == pytest.approx(best.over_refusal)


def test_a_start_that_babbles_beyond_the_bound_is_told_of(made, pairs, tmp_path):
    """Otherwise every checkpoint is ruled out for what the start does too, and nobody knows why."""
    make_tiny_model(tmp_path / "babbling", steps=0)
    given = {"model": str(tmp_path / "babbling"), "validation": validation_file(tmp_path), "checkpoints": 1}
    trained = train(settings(Sft, made, pairs, tmp_path, max_steps=1, **given))
    start = trained.scores[0]
    assert start.neither > 0.1
    assert trained.taken == 0
    said = training_table(trained)
    assert f"The start itself gives neither answer nor refusal to {start.neither:.1%}".replace("%", " %") in said
    assert "(1 of 1 are ruled out by --neither 0.1): the start was taken" in said
    assert "The start itself" in (tmp_path / "out" / "training.json").read_text(encoding="utf-8")


def test_too_few_toxic_prompts_to_show_safety_are_named(made, pairs, tmp_path):
    rows = Path(validation_file(tmp_path)).read_text(encoding="utf-8").splitlines()
    file = tmp_path / "few.csv"
    more = [f"{row.replace(',safe', '')} also,safe" for row in rows[1:121]]
    file.write_text("\n".join([*rows[:172], *more]) + "\n", encoding="utf-8")
    trained = train(settings(Sft, made, pairs, tmp_path, validation=str(file), max_steps=1))
    assert (trained.scores, trained.taken) == ([], 1)
    assert any("51 toxic validation prompts cannot show" in note and "takes 52" in note for note in trained.notes)


def test_a_validation_prompt_that_the_model_has_no_room_for_is_left_out_and_counted(made, pairs, tmp_path):
    file = Path(validation_file(tmp_path))
    with file.open("a", encoding="utf-8") as out:
        out.write(f"{'word ' * 3000},safe\n{'other ' * 3000},toxic\n")
    trained = train(settings(Sft, made, pairs, tmp_path, validation=str(file), checkpoints=1, max_steps=1))
    assert [score.step for score in trained.scores] == [0, 1]
    assert trained.dropped == {"validation_prompt_too_long": 2}
    given = {"samples": 1, "prompts": 20, "temperature": 0.1, "max_steps": 1, "out": str(tmp_path / "raft")}
    trained = train(settings(Raft, made, pairs, tmp_path, validation=str(file), **given))
    assert [score.step for score in trained.scores] == [0, 1]
    assert trained.dropped["validation_prompt_too_long"] == 2


def test_a_loss_that_is_no_number_ends_the_training(made, pairs, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(made[0] / "tiny")
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "broken")
    with pytest.raises(RunError, match="loss is nan"):
        train(settings(Sft, made, pairs, tmp_path, model=str(tmp_path / "broken")))


def test_two_processes_train_one_model_and_one_of_them_speaks(made, pairs, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = {"data": pairs, "model": made[0] / "tiny", "out": "out", "validation": validation_file(tmp_path)}
    flags |= {"max-steps": 1, "checkpoints": 1, "max-tokens": 20, "batch-size": 2, "containment": 1, "neither": 1}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [*launch, "-m", "orbench", "align", "sft", *words, "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(orbench.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    trained = json.loads(done.stdout)  # one object, of the first process
    assert trained["finished"]
    assert [score["step"] for score in trained["scores"]] == [0, 1]
    assert (tmp_path / "out" / "model.safetensors").is_file()
