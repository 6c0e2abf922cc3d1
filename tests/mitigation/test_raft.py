"""RAFT on a real tiny model: what it samples, what it learns, what it goes back to."""

import importlib.util
import json

import pytest

import orbench
from orbench.errors import ModelError, RunError, UsageError
from orbench.mitigation.config import Raft
from orbench.testing import make_tiny_model
from tests.mitigation.conftest import settings, train, validation_file, weights

for module in ("trl", "peft", "torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs the extra `train`", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch, TRL and transformers warn of their own affairs


def test_raft_samples_as_it_is_told_and_takes_no_failed_judge_for_an_answer(made, pairs, tmp_path, judge):
    given = {"samples": 2, "prompts": 10, "temperature": 2.0, "top_p": 0.01, "reward": "python/lately:read"}
    config = settings(Raft, made, pairs, tmp_path, max_steps=1, **given)
    judge.left = 15
    with pytest.raises(RunError, match=r"calls of python/lately:read failed on 5 of 20 replies"):
        train(config)
    replies = [json.loads(line) for line in (tmp_path / "out/samples/iteration-1/responses.jsonl").open()]
    by_prompt = {}
    for reply in replies:
        by_prompt.setdefault(reply["prompt"], set()).add(reply["response"])
    assert [len(texts) for texts in by_prompt.values()] == [1] * 10  # hot, but of the likeliest words alone
    judge.left = 10**9
    trained = train(config)
    assert trained.finished
    assert judge.left == 10**9 - 5
    rows = orbench.Evaluation.load(tmp_path / "out/samples/iteration-1").rows(split="toxic")
    answered = {row.prompt for row in rows if row.refused is False}
    assert answered, "this model gives in to some"
    assert f"for {len(answered)} of {trained.rows['toxic']} toxic prompts" in " ".join(trained.notes)


def test_a_reward_that_cannot_be_read_is_counted_and_none_at_all_is_told_of(made, pairs, tmp_path, monkeypatch):
    (tmp_path / "marker.py").write_text(
        "def none(question):\n    return 'splendid'\n\n"
        "def some(question):\n    return 'splendid' if 'tell me' in question else '[[5]]'\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    given = {"samples": 1, "prompts": 20, "temperature": 0.1, "max_steps": 1}
    with pytest.raises(RunError, match=r"none of the \d+ rewards that python/marker:none gave can be read"):
        train(settings(Raft, made, pairs, tmp_path, **given, reward="python/marker:none", out=str(tmp_path / "none")))
    trained = train(settings(Raft, made, pairs, tmp_path, **given, reward="python/marker:some"))
    assert set(trained.rows) == {"safe"}
    assert trained.dropped["rewards_unread"] == trained.dropped["no_reply_with_a_reward"] > 0


def test_raft_learns_no_reply_that_was_cut_off(made, pairs, tmp_path):
    with pytest.raises(RunError, match=r"20 were drawn, 20 of them cut at --max-tokens 3"):
        train(settings(Raft, made, pairs, tmp_path, samples=2, prompts=10, max_tokens=3))


def test_raft_stops_by_patience_and_goes_back_to_the_start(made, pairs, tmp_path):
    given = {"samples": 1, "prompts": 20, "iterations": 3, "patience": 1, "temperature": 0.1, "max_steps": 4}
    config = settings(Raft, made, pairs, tmp_path, validation=validation_file(tmp_path), **given)
    trained = train(config)
    assert [score.step for score in trained.scores] == [0, 1]
    assert trained.taken == 0
    assert trained.notes[-1] == f"The last iteration is hf/{config.out}/iteration-1."
    assert weights(config.out) == weights(made[0] / "tiny")


def test_raft_in_several_processes_is_refused(made, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        train(settings(Raft, made, pairs, tmp_path))


def test_raft_without_any_reward_says_what_to_do(made, pairs, tmp_path):
    make_tiny_model(tmp_path / "babbling", steps=0)
    config = settings(
        Raft, made, pairs, tmp_path, model=str(tmp_path / "babbling"), samples=1, prompts=5,
        reward="python/no_such_module:judge",
    )  # fmt: skip
    with pytest.raises(ModelError):
        train(config)
