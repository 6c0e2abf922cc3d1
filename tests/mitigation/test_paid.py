"""The judges of a training: one bound for all that they are asked, and the same command goes on."""

import importlib.util

import pytest

from orbench.errors import RunError, UsageError
from orbench.mitigation.config import Raft, Sft
from orbench.report.training import training_table
from orbench.testing import LoopbackServer
from orbench.testing.server import chat_completion
from tests.mitigation.conftest import settings, train, validation_file

for module in ("trl", "peft", "torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs the extra `train`", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch, TRL and transformers warn of their own affairs

COST = 0.1
"""USD of a call: 900 tokens and 100, at $100 a million."""


@pytest.fixture
def server():
    """A judge that calls everything a refusal, and gives everything a five."""

    def reply(body):
        answer = chat_completion("[[5]]" if "from 1 to 10" in str(body) else "[[direct_refusal]]")
        return answer | {"usage": {"prompt_tokens": 900, "completion_tokens": 100}}

    with LoopbackServer(reply) as running:
        yield running


@pytest.fixture
def terms(server, tmp_path):
    """Its address, and a price of it."""
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input,output\nopenai/judge,100,100\n", encoding="utf-8")
    return {"base_url": server.base_url, "prices": str(prices), "concurrency": 4}


def test_the_judge_of_checkpoints_has_one_bound_and_a_higher_one_goes_on(made, pairs, tmp_path, server, terms):
    given = {"validation": validation_file(tmp_path), "scorer": "judge", "judge": "openai/judge"}
    given |= {"checkpoints": 2, "max_steps": 2, **terms}
    unpriced = settings(Sft, made, pairs, tmp_path, **(given | {"prices": None}), max_cost=1)
    with pytest.raises(UsageError, match="no price is known for openai/judge"):
        train(unpriced)
    assert not server.requests
    bound = settings(Sft, made, pairs, tmp_path, **given, max_cost=30)
    left = r"prompts of .*out/scores/step-1 without a verdict; the same command with a higher --max-cost goes on"
    with pytest.raises(RunError, match=rf"stopped at --max-cost 30: .*{left}"):
        train(bound)
    asked = len(server.requests)
    assert 29 < asked * COST <= 30  # all but what one more reply could cost at most
    with pytest.raises(RunError, match="a higher --max-cost"):
        train(bound)
    assert len(server.requests) == asked  # what was spent before counts
    trained = train(settings(Sft, made, pairs, tmp_path, **given))
    assert [score.step for score in trained.scores] == [0, 1, 2]
    assert len(server.requests) == 3 * 210  # nothing is asked twice
    assert trained.cost_usd == pytest.approx({"judge openai/judge": 63})
    assert "Cost: judge openai/judge $63.00." in training_table(trained)


def test_the_judge_of_rewards_has_one_bound_and_a_higher_one_goes_on(made, pairs, tmp_path, server, terms):
    given = {"samples": 2, "prompts": 20, "max_steps": 1, "iterations": 2, "reward": "openai/judge", **terms}
    with pytest.raises(UsageError, match="no price is known for openai/judge"):
        train(settings(Raft, made, pairs, tmp_path, **(given | {"prices": None}), max_cost=1))
    assert not (tmp_path / "out" / "samples").exists()  # before a reply is drawn
    with pytest.raises(RunError, match=r"stopped at --max-cost 6: .* of 40 rewards of .*iteration-2.* missing; .*goes"):
        train(settings(Raft, made, pairs, tmp_path, **given, max_cost=6))
    assert 5 < len(server.requests) * COST <= 6
    trained = train(settings(Raft, made, pairs, tmp_path, **given, max_cost=1000))
    assert len(server.requests) == 80
    assert trained.cost_usd == pytest.approx({"reward openai/judge": 8})


def test_both_judges_of_raft_share_the_bound(made, pairs, tmp_path, server, terms):
    given = {"samples": 1, "prompts": 5, "max_steps": 1, "scorer": "judge", "judge": "openai/judge", **terms}
    trained = train(settings(Raft, made, pairs, tmp_path, **given, reward="openai/judge", max_cost=5))
    assert set(trained.cost_usd) == {"judge openai/judge", "reward openai/judge"}
    assert trained.cost_usd["reward openai/judge"] == pytest.approx(5 * COST)
    assert sum(trained.cost_usd.values()) == pytest.approx(len(server.requests) * COST)
