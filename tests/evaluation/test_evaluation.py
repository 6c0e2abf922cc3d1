"""`orbench.evaluate`, `evaluate_all` and `score`: what happens to every prompt, from asking to the verdict."""

import asyncio
import json
import re
import threading
from collections import Counter

import pytest

import orbench
from orbench.engine.run_folder import read_config, read_responses, read_verdicts
from orbench.evaluation import work
from orbench.models import Options, open_model
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.models.defended import defend
from orbench.records import Completion, Prompt, Usage
from orbench.testing import LoopbackServer, ScriptedModel, prompt_of, refusing
from orbench.testing.server import chat_completion

UNCLEAR = "Hm."
"""A reply that no local stage is sure of."""
LABEL = "It responds. [[direct_answer]]"


def split(kind="safe", rows=6, name=None, categories=("harmful", "privacy")):
    name = name or f"mine-{kind}"
    prompts = (
        Prompt(
            id=str(n), text=f"A {kind} question {n}?", category=categories[n % len(categories)], kind=kind, split=name
        )
        for n in range(rows)
    )
    return orbench.Split(name, prompts, "test")


def lines(run):
    """How many lines of replies and of verdicts each row of a run has."""
    return Counter(r.key for r in read_responses(run)), Counter(v.key for v in read_verdicts(run))


def outcomes(result):
    return {str(outcome): count for outcome, count in result.outcomes.items()}


def prompts_of(model):
    return sorted(request.prompt for request in model.requests)


class Numbered:
    """Replies by the number in the prompt, or the first of several that is left; others get an answer."""

    def __init__(self, **replies):
        self.replies = {name.removeprefix("n"): reply for name, reply in replies.items()}

    def __call__(self, request):
        number = request.prompt.rstrip("?").split()[-1]
        reply = self.replies.get(number, ANSWER)
        if isinstance(reply, list):
            reply = reply.pop(0) if reply else ANSWER
        return reply


class Lifecycle(ScriptedModel):
    """Counts how often it was closed."""

    closed = 0

    async def close(self):
        self.closed += 1


# --- every prompt once


MIXED = {
    "n0": orbench.RejectedError("too long"),
    "n1": ValueError("odd"),
    "n2": Completion(id="", text="", finish_reason="content_filter", blocked_by="prompt"),
    "n3": Completion(id="", text=""),
    "n4": Completion(id="", text="", reasoning="Let me see", finish_reason="length"),
    "n5": REFUSAL,
    "n6": UNCLEAR,
    "n7": [orbench.RetryableError("busy"), REFUSAL],
}


def test_every_prompt_ends_in_one_reply_and_one_verdict_whatever_happens(tmp_path):
    result = orbench.evaluate(
        ScriptedModel(Numbered(**MIXED)), splits=[split("safe", 20), split("toxic", 12)], out=tmp_path / "run"
    )
    replies, verdicts = lines(tmp_path / "run")
    assert (
        set(replies)
        == set(verdicts)
        == {(f"mine-{k}", str(n)) for k, c in [("safe", 20), ("toxic", 12)] for n in range(c)}
    )
    assert set(replies.values()) == set(verdicts.values()) == {1}
    assert outcomes(result) == {
        "direct_answer": 12 + 4 + 1,
        "direct_refusal": 2 + 1,
        "blocked": 2,
        "empty": 2,
        "truncated_reasoning": 2,
        "error": 4,
        "unscored": 2,
    }
    assert sum(result.outcomes.values()) == result.prompts == 32


def test_a_reply_is_saved_with_all_that_is_known_of_it(tmp_path):
    told = Completion(
        id="",
        text=ANSWER,
        reasoning="Let me see",
        finish_reason="length",
        usage=Usage(input_tokens=3, output_tokens=5),
    )
    model = ScriptedModel([orbench.RetryableError("busy"), told])
    orbench.evaluate(model, splits=[split(rows=1)], out=tmp_path)
    (response,) = read_responses(tmp_path)
    assert (response.prompt_id, response.split, response.category, response.kind) == (
        "0",
        "mine-safe",
        "harmful",
        "safe",
    )
    assert (response.prompt, response.response, response.reasoning) == ("A safe question 0?", ANSWER, "Let me see")
    assert (response.finish_reason, response.blocked_by, response.usage) == ("length", None, told.usage)
    assert (response.attempts, response.error) == (2, None)
    assert response.latency_s >= 0
    assert response.received_at.endswith("+00:00")


def test_an_error_is_saved_without_a_reply(tmp_path):
    broken = Completion(id="", text="half an ans", error="out of memory", usage=Usage(input_tokens=3))
    result = orbench.evaluate(ScriptedModel(broken), splits=[split(rows=1)], out=tmp_path)
    (response,) = read_responses(tmp_path)
    assert (response.response, response.finish_reason, response.error) == ("", None, "out of memory")
    assert response.usage == broken.usage
    assert outcomes(result) == {"error": 1}
    assert result.over_refusal_rate.value is None


def test_the_request_carries_sampling_and_system_prompt(tmp_path):
    model = ScriptedModel(ANSWER)
    options = {"temperature": 0.5, "max_tokens": 7, "seed": 3, "system_prompt": "Be brief."}
    orbench.evaluate(model, splits=[split(rows=1)], out=tmp_path, **options)
    (request,) = model.requests
    assert (request.system_prompt, request.prompt) == ("Be brief.", "A safe question 0?")
    assert request.sampling == orbench.Sampling(temperature=0.5, max_tokens=7, seed=3)


def test_greedy_requests_carry_no_seed(tmp_path):
    model = ScriptedModel(ANSWER)
    orbench.evaluate(model, splits=[split(rows=1)], out=tmp_path, seed=3)
    assert model.requests[0].sampling == orbench.Sampling(temperature=0.0, max_tokens=1000, seed=None)
    assert model.requests[0].system_prompt is None


def test_a_prompt_of_a_megabyte_goes_through(tmp_path):
    long = Prompt(id="long", text="Why? " * 200_000, category="harmful", kind="safe", split="mine")
    with LoopbackServer(ANSWER) as server:
        result = orbench.evaluate(
            "openai/any", base_url=server.base_url, splits=[orbench.Split("mine", [long], "test")], out=tmp_path
        )
    assert server.requests[0]["messages"][0]["content"] == long.text
    assert outcomes(result) == {"direct_answer": 1}
    assert next(result.rows()).prompt == long.text


def test_half_a_surrogate_pair_in_a_reply_is_replaced_everywhere(tmp_path):
    reply = ANSWER + " \ud83d"
    judge = ScriptedModel(LABEL)
    result = orbench.evaluate(lambda prompt: reply, splits=[split(rows=1)], scorer="judge", judge=judge, out=tmp_path)
    assert next(result.rows()).response == ANSWER + " \ufffd"
    assert "\ud83d" not in judge.requests[0].prompt


# --- going on


def test_the_same_call_goes_on_where_it_stopped(tmp_path):
    splits = [split("safe", 30), split("toxic", 10)]
    broken = ScriptedModel([ANSWER] * 12, default=orbench.ModelError("no quota left"))
    with pytest.raises(orbench.ModelError, match="no quota left"):
        orbench.evaluate(broken, splits=splits, out=tmp_path)
    saved = {response.prompt for response in read_responses(tmp_path)}
    assert len(saved) >= 10
    model = ScriptedModel(ANSWER)
    result = orbench.evaluate(model, splits=splits, out=tmp_path)
    assert set(prompts_of(model)) == {prompt.text for each in splits for prompt in each} - saved
    assert len(model.requests) == 40 - len(saved)
    assert result.open == 0
    assert set(lines(tmp_path)[0].values()) == {1}


def test_a_partial_run_can_be_read_while_it_is_owed_the_rest(tmp_path):
    model = ScriptedModel([REFUSAL, REFUSAL], default=orbench.ModelError("stop"), max_concurrency=1)
    with pytest.raises(orbench.ModelError):
        orbench.evaluate(model, splits=[split(rows=5)], out=tmp_path)
    result = orbench.Evaluation.load(tmp_path)
    assert (result.prompts, result.open, outcomes(result)) == (5, 3, {"direct_refusal": 2})
    assert result.over_refusal_rate.scored == 2
    assert json.loads((tmp_path / "result.json").read_text()) == result.to_dict()
    assert "3 prompts without an outcome" in str(result)


def test_a_finished_run_makes_no_request(tmp_path):
    first = orbench.evaluate(ScriptedModel(Numbered(n1=UNCLEAR)), splits=[split()], out=tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in ("responses.jsonl", "verdicts.jsonl", "result.json")}
    model = ScriptedModel(ANSWER)
    again = orbench.evaluate(model, splits=[split()], out=tmp_path)
    assert model.requests == []
    assert again.to_dict() == first.to_dict()
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_prompts_in_error_are_asked_again_and_the_last_reply_counts(tmp_path):
    first = orbench.evaluate(
        ScriptedModel(Numbered(n1=ValueError("odd"), n4=ValueError("odd"))), splits=[split()], out=tmp_path
    )
    assert (first.open, outcomes(first)) == (2, {"direct_answer": 4, "error": 2})
    model = ScriptedModel(Numbered(n1=REFUSAL, n4=ValueError("still odd")))
    second = orbench.evaluate(model, splits=[split()], out=tmp_path)
    assert prompts_of(model) == ["A safe question 1?", "A safe question 4?"]
    assert outcomes(second) == {"direct_answer": 4, "direct_refusal": 1, "error": 1}
    assert second.open == 1
    assert second.to_dict()["usage"]["requests"] == 8
    replies, verdicts = lines(tmp_path)
    assert replies == verdicts == {**dict.fromkeys(replies, 1), ("mine-safe", "1"): 2, ("mine-safe", "4"): 2}
    assert [row.error for row in second.rows(outcome="error")] == ["ValueError: still odd"]


def test_the_verdict_of_an_error_is_void_beside_a_later_reply(tmp_path):
    orbench.evaluate(ScriptedModel(ValueError("odd")), splits=[split(rows=2)], out=tmp_path)
    verdicts = (tmp_path / "verdicts.jsonl").read_bytes()
    orbench.evaluate(ScriptedModel(REFUSAL), splits=[split(rows=2)], out=tmp_path)
    (tmp_path / "verdicts.jsonl").write_bytes(verdicts)  # as if killed between reply and verdict
    assert (orbench.Evaluation.load(tmp_path).open, list(orbench.Evaluation.load(tmp_path).rows())) == (2, [])
    model = ScriptedModel(ANSWER)
    result = orbench.evaluate(model, splits=[split(rows=2)], out=tmp_path)
    assert model.requests == []
    assert outcomes(result) == {"direct_refusal": 2}


@pytest.mark.parametrize("error", [False, True])
def test_a_reply_whose_verdict_was_lost_is_scored_without_a_call(tmp_path, error):
    orbench.evaluate(ScriptedModel(ValueError("odd") if error else REFUSAL), splits=[split()], out=tmp_path)
    (tmp_path / "verdicts.jsonl").write_bytes(b'{"prompt_id":"0","spl')
    result = orbench.score(tmp_path)
    assert outcomes(result) == ({"error": 6} if error else {"direct_refusal": 6})
    assert result.open == (6 if error else 0)


def test_an_error_whose_verdict_was_lost_is_asked_again_and_gets_one_verdict(tmp_path):
    orbench.evaluate(ScriptedModel(ValueError("odd")), splits=[split()], out=tmp_path)
    (tmp_path / "verdicts.jsonl").unlink()
    orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path)
    assert set(lines(tmp_path)[1].values()) == {1}


def test_a_torn_last_reply_is_asked_again(tmp_path):
    orbench.evaluate(ScriptedModel(ANSWER, max_concurrency=1), splits=[split()], out=tmp_path)
    path = tmp_path / "responses.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    model = ScriptedModel(REFUSAL)
    result = orbench.evaluate(model, splits=[split()], out=tmp_path)
    assert prompts_of(model) == ["A safe question 5?"]
    assert set(lines(tmp_path)[0].values()) == {1}
    assert outcomes(result) == {"direct_answer": 5, "direct_refusal": 1}


def test_a_damaged_line_in_the_middle_stops_before_anything_is_asked(tmp_path):
    orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path)
    path = tmp_path / "responses.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"prompt_id"', b'"prompt', 2))
    model = ScriptedModel(ANSWER)
    with pytest.raises(orbench.RunError, match=r"responses\.jsonl, line 1: "):
        orbench.evaluate(model, splits=[split()], out=tmp_path)
    assert model.requests == []


def test_what_stopped_a_run_is_told_even_if_its_result_cannot_be_saved(tmp_path):
    orbench.evaluate(ScriptedModel([ANSWER], default=ValueError("odd")), splits=[split()], out=tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "result.json").mkdir()
    with pytest.raises(orbench.ModelError, match="wrong key"):
        orbench.evaluate(ScriptedModel(orbench.ModelError("wrong key")), splits=[split()], out=tmp_path)


def test_a_run_folder_of_another_configuration_is_left_alone(tmp_path):
    orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path)
    model = ScriptedModel(ANSWER)
    with pytest.raises(orbench.RunError, match=r"another temperature: 0\.0 there, 0\.5 now"):
        orbench.evaluate(model, splits=[split()], out=tmp_path, temperature=0.5)
    with pytest.raises(orbench.RunError, match=r"another set of prompts: mine-safe \(6 prompts, .*\(2 prompts"):
        orbench.evaluate(model, splits=[split()], limit=2, out=tmp_path)
    assert model.requests == []


# --- scoring again


def test_another_scorer_reads_the_stored_replies_again(tmp_path):
    first = orbench.evaluate(ScriptedModel(UNCLEAR), splits=[split()], out=tmp_path)
    assert (outcomes(first), first.unsure, first.open) == ({"unscored": 6}, 6, 0)
    model = ScriptedModel(ANSWER)
    second = orbench.evaluate(model, splits=[split()], out=tmp_path, scorer="keywords")
    assert model.requests == []
    assert (outcomes(second), second.unsure) == ({"direct_answer": 6}, 0)
    assert read_config(tmp_path)["scorer"]["name"] == "keywords"
    third = orbench.score(tmp_path)
    assert outcomes(third) == {"unscored": 6}


def test_superseded_replies_are_not_scored_again(tmp_path):
    orbench.evaluate(ScriptedModel(ValueError("odd")), splits=[split()], out=tmp_path)
    orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path)
    replies, verdicts = lines(tmp_path)
    assert set(replies.values()) == set(verdicts.values()) == {2}
    orbench.score(tmp_path, scorer="keywords")
    assert set(lines(tmp_path)[1].values()) == {3}


def test_score_keeps_the_policy_unless_told_otherwise(tmp_path):
    orbench.evaluate(ScriptedModel(""), splits=[split()], out=tmp_path, policy="strict")
    assert orbench.score(tmp_path, scorer="keywords").over_refusal_rate.refused == 6
    assert orbench.score(tmp_path, policy="default").over_refusal_rate.left_out == 6
    assert orbench.Evaluation.load(tmp_path).policy == "default"


def test_a_run_that_is_gone_on_with_keeps_its_policy_unless_told_otherwise(tmp_path):
    orbench.evaluate(ScriptedModel(""), splits=[split()], out=tmp_path, policy="strict")
    assert orbench.evaluate(ScriptedModel(""), splits=[split()], out=tmp_path).policy == "strict"
    assert orbench.Evaluation.load(tmp_path).policy == "strict"
    assert orbench.evaluate(ScriptedModel(""), splits=[split()], out=tmp_path, policy="default").policy == "default"
    assert orbench.evaluate(ScriptedModel(""), splits=[split()], out=tmp_path).policy == "default"


def test_scoring_a_partial_run_leaves_the_rest_owed(tmp_path):
    model = ScriptedModel([UNCLEAR, UNCLEAR], default=orbench.ModelError("stop"), max_concurrency=1)
    with pytest.raises(orbench.ModelError):
        orbench.evaluate(model, splits=[split()], out=tmp_path)
    result = orbench.score(tmp_path, scorer="keywords")
    assert (outcomes(result), result.open) == ({"direct_answer": 2}, 4)


def test_score_refuses_what_is_no_run(tmp_path):
    with pytest.raises(orbench.RunError, match="not a run folder"):
        orbench.score(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# --- the judge


def test_the_judge_reads_what_no_stage_is_sure_of(tmp_path):
    judge = ScriptedModel("It offers something else. [[indirect_refusal]]", name="scripted/judge")
    model = ScriptedModel(Numbered(n1=UNCLEAR, n3=UNCLEAR))
    result = orbench.evaluate(model, splits=[split()], judge=judge, audit=0, out=tmp_path)
    assert outcomes(result) == {"direct_answer": 4, "indirect_refusal": 2}
    assert len(judge.requests) == 2
    assert [(row.by, row.judge) for row in result.rows(outcome="indirect_refusal")] == [("judge", "scripted/judge")] * 2
    assert read_config(tmp_path)["scorer"]["judge"] == "scripted/judge"
    assert set(read_config(tmp_path)["templates"]) == {"judge-three-classes"}


def test_a_judge_that_failed_is_asked_again_and_one_that_did_not_is_not(tmp_path):
    def verdict(request):
        return orbench.RejectedError("no") if "question 2?" in request.prompt else LABEL

    first = orbench.evaluate(
        ScriptedModel(UNCLEAR), splits=[split()], judge=ScriptedModel(verdict, name="j/j"), out=tmp_path
    )
    assert (outcomes(first), first.failed_judgements, first.open) == ({"direct_answer": 5, "unscored": 1}, 1, 1)
    model, judge = ScriptedModel(ANSWER), ScriptedModel(LABEL, name="j/j")
    second = orbench.evaluate(model, splits=[split()], judge=judge, out=tmp_path)
    assert model.requests == []
    assert len(judge.requests) == 1
    assert "question 2?" in judge.requests[0].prompt
    assert (outcomes(second), second.open) == ({"direct_answer": 6}, 0)


def test_a_judge_that_cannot_be_read_leaves_the_reply_unscored(tmp_path):
    judge = ScriptedModel("I would say it is fine.")
    result = orbench.evaluate(ScriptedModel(UNCLEAR), splits=[split(rows=1)], judge=judge, out=tmp_path)
    assert (outcomes(result), result.open, result.unsure) == ({"unscored": 1}, 1, 0)
    assert result.to_dict()["usage"]["judge"]["requests"] == len(judge.requests) == 3


def test_the_judge_works_while_the_model_does(tmp_path):
    judged = asyncio.Event()

    async def model(prompt):
        if "question 0?" not in prompt:
            await judged.wait()  # never set if the judge waited for the model's end
        return UNCLEAR

    async def judge(prompt):
        judged.set()
        return LABEL

    result = orbench.evaluate(model, splits=[split()], judge=judge, out=tmp_path)
    assert outcomes(result) == {"direct_answer": 6}


def test_more_undecided_replies_than_the_queue_holds_are_all_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "_JUDGE_QUEUE", 2)
    for round_ in (1, 2):  # fresh ones, then stored ones for another judge
        judge = ScriptedModel(LABEL, name=f"judge/{round_}")
        result = orbench.evaluate(ScriptedModel(UNCLEAR), splits=[split(rows=300)], judge=judge, out=tmp_path)
        assert len(judge.requests) == 300
        assert outcomes(result) == {"direct_answer": 300}


@pytest.mark.parametrize("stored", [False, True])
def test_a_judge_that_cannot_be_used_stops_the_run_even_if_its_queue_is_full(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(work, "_JUDGE_QUEUE", 2)
    if stored:
        orbench.evaluate(ScriptedModel(UNCLEAR), splits=[split(rows=2000)], out=tmp_path)
    model = ScriptedModel(UNCLEAR)
    judge = ScriptedModel([LABEL] * 3, default=orbench.ModelError("judge: wrong key"))
    with pytest.raises(orbench.ModelError, match="judge: wrong key"):
        orbench.evaluate(model, splits=[split(rows=2000)], judge=judge, out=tmp_path)
    assert len(model.requests) < 2000
    # What was received is saved, and scored by the next call.
    result = orbench.evaluate(
        ScriptedModel(UNCLEAR), splits=[split(rows=2000)], judge=ScriptedModel(LABEL), out=tmp_path
    )
    assert outcomes(result) == {"direct_answer": 2000}
    assert set(lines(tmp_path)[0].values()) == {1}


def test_a_model_that_cannot_be_used_stops_a_judge_at_work(tmp_path):
    stopped = []

    async def judge(prompt):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    model = ScriptedModel([UNCLEAR, UNCLEAR], default=orbench.ModelError("wrong key"), max_concurrency=1)
    with pytest.raises(orbench.ModelError, match="wrong key"):
        orbench.evaluate(model, splits=[split()], judge=judge, out=tmp_path)
    assert len(list(read_responses(tmp_path))) == 2
    assert len(stopped) <= 2


def test_where_model_and_judge_fail_together_one_of_them_is_told(tmp_path):
    model = ScriptedModel([UNCLEAR], default=orbench.ModelError("no model"), max_concurrency=1)
    judge = ScriptedModel(orbench.ModelError("no judge"))
    with pytest.raises(orbench.ModelError, match=r"no (model|judge)"):
        orbench.evaluate(model, splits=[split()], judge=judge, out=tmp_path)


def test_a_judge_that_takes_the_whole_list_judges_after_the_model(tmp_path):
    judge = ScriptedModel(LABEL, batch_size=None)
    result = orbench.evaluate(ScriptedModel(UNCLEAR), splits=[split()], judge=judge, out=tmp_path)
    assert outcomes(result) == {"direct_answer": 6}


@pytest.mark.parametrize(
    ("models", "judge", "shared"),
    [
        (["openai/one"], "openai/judge", True),
        (["openai/one", "groq/two"], "groq/judge", True),
        (["openai/one"], "groq/judge", False),
    ],
)
def test_the_judge_is_asked_at_the_models_address_if_it_is_of_their_provider(tmp_path, models, judge, shared):
    def reply(body):
        return LABEL if body["model"] == "judge" else UNCLEAR

    with LoopbackServer(reply) as server:
        options = {"splits": [split(rows=2)], "base_url": server.base_url, "judge": judge, "out": tmp_path}
        if shared:
            results = orbench.evaluate_all(models, **options)
            assert [outcomes(result) for result in results] == [{"direct_answer": 2}] * len(models)
        else:
            with pytest.raises(orbench.ModelError, match="GROQ_API_KEY"):
                orbench.evaluate_all(models, **options)
            assert server.requests == []


def test_the_judge_may_have_an_address_of_its_own(tmp_path):
    with LoopbackServer(UNCLEAR) as server, LoopbackServer(LABEL) as other:
        result = orbench.evaluate(
            "openai/one",
            splits=[split(rows=2)],
            base_url=server.base_url,
            judge="openai/judge",
            judge_base_url=other.base_url,
            out=tmp_path,
        )
    assert (server.answered, other.answered) == (2, 2)
    assert outcomes(result) == {"direct_answer": 2}


# --- callables


def test_a_plain_callable_is_called_one_at_a_time_in_one_worker_thread(tmp_path):
    threads, together = set(), []
    lock = threading.Lock()

    def model(prompt):
        assert lock.acquire(blocking=False), "called twice at once"
        threads.add(threading.get_ident())
        together.append(prompt)
        lock.release()
        return ANSWER

    result = orbench.evaluate(model, splits=[split(rows=20)], out=tmp_path)
    assert outcomes(result) == {"direct_answer": 20}
    assert len(together) == 20
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_plain_callable_is_called_as_often_at_once_as_it_is_told(tmp_path):
    together = threading.Barrier(3, timeout=10)

    def model(prompt):
        together.wait()  # passes only with three calls at once
        return ANSWER

    result = orbench.evaluate(model, splits=[split(rows=9)], concurrency=3, out=tmp_path)
    assert outcomes(result) == {"direct_answer": 9}


def test_an_asynchronous_callable_is_called_many_times_at_once(tmp_path):
    together = asyncio.Barrier(6)

    async def model(prompt):
        await together.wait()
        return ANSWER

    assert outcomes(orbench.evaluate(model, splits=[split(rows=6)], out=tmp_path)) == {"direct_answer": 6}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_callable_that_fails_for_a_prompt_is_an_error_of_that_prompt(tmp_path, is_async):
    def model(prompt):
        number = prompt[-2]
        if number == "1":
            raise ValueError("odd")
        if number == "2":
            raise SystemExit(0) if not is_async else asyncio.CancelledError
        return {"3": None, "4": 5}.get(number, ANSWER)

    async def asynchronous(prompt):
        return model(prompt)

    result = orbench.evaluate(asynchronous if is_async else model, splits=[split(rows=6)], out=tmp_path)
    assert {row.prompt_id: row.error for row in result.rows(outcome="error")} == {
        "1": "ValueError: odd",
        "2": "CancelledError" if is_async else "RuntimeError: SystemExit raised: 0",
        "3": "the callable returned NoneType, not a string",
        "4": "the callable returned int, not a string",
    }
    assert result.open == 4


def test_a_system_prompt_cannot_reach_a_callable_and_that_is_said(tmp_path):
    with pytest.raises(orbench.ModelError, match="a callable takes the prompt alone"):
        orbench.evaluate(lambda prompt: ANSWER, splits=[split()], system_prompt="Be brief.", out=tmp_path)


def test_it_works_inside_a_running_event_loop(tmp_path):
    async def notebook():
        return orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path)

    assert outcomes(asyncio.run(notebook())) == {"direct_answer": 6}

    async def failing():
        orbench.evaluate(ScriptedModel(orbench.ModelError("wrong key")), splits=[split()], out=tmp_path / "b")

    with pytest.raises(orbench.ModelError, match="wrong key"):
        asyncio.run(failing())


# --- several models


def test_one_model_that_fails_does_not_stop_the_others(tmp_path):
    found = orbench.evaluate_all(
        [
            ScriptedModel(ANSWER, name="a/good"),
            ScriptedModel(orbench.ModelError("wrong key"), name="a/bad"),
            "openai/no-key",
            ScriptedModel(REFUSAL, name="b/good"),
        ],
        splits=[split()],
        out=tmp_path,
    )
    assert [type(each).__name__ for each in found] == ["Evaluation", "ModelError", "ModelError", "Evaluation"]
    assert [found[n].over_refusal_rate.value for n in (0, 3)] == [0.0, 1.0]
    assert str(found[1]) == "wrong key"
    assert "OPENAI_API_KEY" in str(found[2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a--bad", "a--good", "b--good"]


@pytest.mark.parametrize("out", [True, False])
def test_two_models_that_would_share_a_folder_are_refused_before_anything_is_asked(here, out):
    models = [Lifecycle(ANSWER), Lifecycle(REFUSAL)]
    with pytest.raises(orbench.UsageError, match="would share the run folder"):
        orbench.evaluate_all(models, splits=[split()], out=here / "out" if out else None)
    assert [model.requests for model in models] == [[], []]
    assert [model.closed for model in models] == [1, 1]
    assert list(here.iterdir()) == []


def test_models_behind_a_wire_work_side_by_side(tmp_path):
    together = asyncio.Barrier(2)

    async def one(prompt):
        await together.wait()
        return ANSWER

    async def two(prompt):
        await together.wait()
        return ANSWER

    found = orbench.evaluate_all([one, two], splits=[split()], concurrency=1, out=tmp_path)
    assert [outcomes(each) for each in found] == [{"direct_answer": 6}] * 2


class LocalEngine(ScriptedModel):
    """Takes the whole list and notes when it begins and ends."""

    def __init__(self, name, log):
        super().__init__(UNCLEAR, name=name, batch_size=None)
        self._log = log

    async def generate(self, requests):
        self._log.append(f"{self.name} begins")
        for _ in range(20):
            await asyncio.sleep(0)
        async for completion in super().generate(requests):
            yield completion
        self._log.append(f"{self.name} ends")

    async def close(self):
        self._log.append(f"{self.name} closed")


def test_local_engines_work_one_after_the_other_and_are_closed_between(tmp_path):
    log = []
    found = orbench.evaluate_all([LocalEngine("a/a", log), LocalEngine("b/b", log)], splits=[split()], out=tmp_path)
    assert [outcomes(each) for each in found] == [{"unscored": 6}] * 2
    assert log == ["a/a begins", "a/a ends", "a/a closed", "b/b begins", "b/b ends", "b/b closed"]


def test_runs_with_one_local_judge_do_not_use_it_at_the_same_time(tmp_path):
    log = []
    judge = LocalEngine("j/j", log)
    models = [ScriptedModel(UNCLEAR, name=name) for name in ("a/a", "b/b")]
    orbench.evaluate_all(models, splits=[split()], judge=judge, out=tmp_path)
    rounds = [line for line in log if line != "j/j closed"]
    assert rounds == ["j/j begins", "j/j ends"] * (len(rounds) // 2)
    assert log.count("j/j closed") == 3  # let go after each run, and in the end


def test_a_local_model_is_let_go_before_its_local_judges_are_asked_one_after_the_other(tmp_path):
    log = []
    judges = [LocalEngine(name, log) for name in ("j/1", "j/2")]
    safety = LocalEngine("s/s", log)
    orbench.evaluate(
        LocalEngine("a/a", log), splits=[split(kind="toxic")], judge=judges, safety_judge=safety, out=tmp_path / "run"
    )
    turns = [line.split()[0] for n, line in enumerate(log) if n == 0 or line.split()[0] != log[n - 1].split()[0]]
    assert turns[0] == "a/a"
    assert sorted(turns[1:3]) == ["j/1", "j/2"]
    assert turns[3] == "s/s"
    closed = [log.index(f"{name} closed") for name in turns[:4]]
    begun = [log.index(f"{name} begins") for name in turns[1:4]]
    assert all(end < begin for end, begin in zip(closed, begun, strict=False))


def test_a_judge_of_several_models_is_closed_once_after_all_of_them(tmp_path):
    judge = Lifecycle(lambda request: LABEL if not judge.closed else ValueError("closed"), name="j/j")

    async def late(prompt):
        for _ in range(100):
            await asyncio.sleep(0)
        return UNCLEAR

    found = orbench.evaluate_all([ScriptedModel(UNCLEAR), late], splits=[split()], judge=judge, out=tmp_path)
    assert [outcomes(each) for each in found] == [{"direct_answer": 6}] * 2
    assert judge.closed == 1


@pytest.mark.parametrize("reply", [ANSWER, orbench.ModelError("wrong key"), ValueError("odd")])
def test_models_and_judges_are_closed_whatever_happens(tmp_path, reply):
    model, judge = Lifecycle(reply), Lifecycle(LABEL, name="j/j")
    orbench.evaluate_all([model], splits=[split()], judge=judge, out=tmp_path)
    assert (model.closed, judge.closed) == (1, 1)


# --- folders and what they are called


def test_the_default_folder_is_found_again_by_the_same_call_and_by_no_other(here):
    def folder(**options):
        model = ScriptedModel(ANSWER)
        return orbench.evaluate(model, **{"splits": [split()], **options}).run

    first = folder()
    assert first.parts[:-1] == ("runs",)
    assert first.name.startswith("scripted--model-")
    assert len(first.name) == len("scripted--model-") + 8
    same = [
        {"scorer": "keywords"},
        {"judge": ScriptedModel(LABEL)},
        {"policy": "strict"},
        {"concurrency": 2},
        {"seed": 5},
        {"base_url": "http://127.0.0.1:1/v1"},
    ]
    assert {folder(**options) for options in same} == {first}
    others = [
        {"temperature": 0.5},
        {"temperature": 0.5, "seed": 5},
        {"max_tokens": 5},
        {"system_prompt": "Be brief."},
        {"limit": 2},
        {"splits": [split("toxic")]},
        {"splits": [split(name="renamed")]},
    ]
    assert len({first, *(folder(**options) for options in others)}) == 1 + len(others)


def test_two_callables_of_one_name_have_folders_of_their_own(here):
    def make(reply):
        return lambda prompt: reply

    folders = {orbench.evaluate(make(reply), splits=[split()]).run for reply in (ANSWER, REFUSAL)}
    assert len(folders) == 2


def test_out_is_the_folder_of_one_model_and_the_parent_of_several(tmp_path):
    one = orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path / "one")
    assert one.run == tmp_path / "one"
    several = orbench.evaluate_all(
        [ScriptedModel(ANSWER, name="a/x"), ScriptedModel(ANSWER, name="b/y:z")], splits=[split()], out=tmp_path / "two"
    )
    assert [each.run for each in several] == [tmp_path / "two" / "a--x", tmp_path / "two" / "b--y-z"]


def test_the_configuration_says_all_that_was_decided(tmp_path):
    def reply(body):
        if "temperature" in body:
            return 400, {"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}
        return ANSWER

    with LoopbackServer(reply) as server:
        result = orbench.evaluate(
            "openai/thinker",
            base_url=server.base_url,
            splits=[split()],
            concurrency=2,
            system_prompt="Hi.",
            out=tmp_path,
        )
    config = read_config(tmp_path)
    assert result.config == config
    assert config["model"] == "openai/thinker"
    assert config["splits"][0] == {
        "name": "mine-safe",
        "kind": "safe",
        "fingerprint": split().fingerprint,
        "prompts": 6,
        "categories": ["harmful", "privacy"],
        "source": "test",
    }
    assert config["base_url"] == server.base_url + "/"
    assert (config["system_prompt"], config["concurrency"], config["policy"]) == ("Hi.", 2, "default")
    assert config["concurrency_used"] == {"peak": 2, "cuts": 0, "limit": 2, "slowed": 0, "paced_s": 0}
    assert config["adaptations"] == ["temperature left to the model, which accepts no other"]
    assert config["orbench_version"] == orbench.__version__
    assert config["templates"] == {}


def test_a_key_is_nowhere_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123")
    with LoopbackServer(lambda body: (400, {"error": {"message": "bad request of sk-canary-123"}})) as server:
        orbench.evaluate("openai/any", base_url=server.base_url, splits=[split()], out=tmp_path)
    assert server.headers[0]["Authorization"] == "Bearer sk-canary-123"
    for path in tmp_path.iterdir():
        assert b"canary" not in path.read_bytes()


def test_usage_counts_every_call_and_all_tokens(tmp_path):
    with LoopbackServer(lambda body: chat_completion(ANSWER)) as server:
        result = orbench.evaluate("openai/any", base_url=server.base_url, splits=[split()], out=tmp_path)
    words = len(ANSWER.split())
    assert result.to_dict()["usage"] == {
        "requests": 6,
        "input_tokens": 60,
        "output_tokens": 6 * words,
        "cost_usd": None,
    }


def test_a_finished_run_can_be_replayed_without_a_call(tmp_path):
    first = orbench.evaluate(
        ScriptedModel(Numbered(n0=ValueError("odd"), n1=REFUSAL, n2="")), splits=[split()], out=tmp_path / "a"
    )
    second = orbench.evaluate(f"replay/{first.run}", splits=[split(), split("toxic", 2)], out=tmp_path / "b")
    assert outcomes(second) == {"direct_answer": 3, "direct_refusal": 1, "empty": 1, "error": 1 + 2}


# --- what cannot be meant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 2.5}, "temperature is 2.5: it goes from 0 to 2"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0: above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_tokens": 0}, "max_tokens is 0: at least 1"),
        ({"concurrency": 0}, "concurrency is 0: at least 1"),
        ({"limit": 0}, "limit is 0: at least 1"),
        ({"policy": "lenient"}, "unknown policy 'lenient'"),
        ({"scorer": "magic"}, "unknown scorer 'magic'"),
        ({"scorer": "judge"}, "needs a judge"),
        ({"scorer": "keywords", "judge": ScriptedModel(LABEL)}, "leave --judge out"),
        ({"scorer": "paper"}, "names none"),
        ({"judge": "nobody/x"}, "unknown provider 'nobody'"),
        ({"judge": 5}, "not a int"),
        ({"system_prompt": "\udcff"}, "the system prompt is not text in UTF-8"),
        ({"splits": []}, "no split given"),
        ({"splits": "no-such"}, "unknown split 'no-such'"),
        ({"splits": [split(), split()]}, "two splits are called 'mine-safe'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made_or_asked(here, options, message):
    model = ScriptedModel(ANSWER)
    with pytest.raises(orbench.UsageError, match=message.replace("(", r"\(")):
        orbench.evaluate(model, **{"splits": [split()], **options})
    assert model.requests == []
    assert list(here.iterdir()) == []


def test_no_model_is_wrong_usage():
    with pytest.raises(orbench.UsageError, match="no model given"):
        orbench.evaluate_all([], splits=[split()])


@pytest.mark.parametrize("model", [5, None, "nobody/x", "openai", "openai/"])
def test_what_is_no_model_is_wrong_usage(here, model):
    with pytest.raises(orbench.UsageError):
        orbench.evaluate(model, splits=[split()])


# --- splits that were loaded before


def test_a_split_of_both_kinds_is_two(tmp_path):
    both = orbench.load_split("sample", limit=40)
    result = orbench.evaluate(ScriptedModel(ANSWER), splits=both, out=tmp_path)
    assert {name: found.kind for name, found in result.splits.items()} == {
        "sample/safe": "safe",
        "sample/toxic": "toxic",
    }
    assert sum(result.outcomes.values()) == result.prompts == 40


def test_a_split_of_ones_own_choice_counts_under_its_own_name(tmp_path):
    chosen = orbench.Split("chosen", list(orbench.load_split("sample/safe"))[:5], "by hand")
    result = orbench.evaluate(ScriptedModel(ANSWER), splits=[chosen], out=tmp_path)
    assert (result.prompts, outcomes(result)) == (5, {"direct_answer": 5})
    assert {row.split for row in result.rows()} == {"chosen"}


def test_limit_holds_for_loaded_splits_too(tmp_path):
    result = orbench.evaluate(ScriptedModel(ANSWER), splits=[split(rows=100)], limit=10, out=tmp_path)
    assert result.prompts == 10
    assert {name: rate.scored for name, rate in result.categories("mine-safe").items()} == {"harmful": 5, "privacy": 5}


def test_prompts_that_share_an_id_are_refused(tmp_path):
    twice = orbench.Split("twice", [*split(rows=2), *split(rows=1)], "test")
    with pytest.raises(orbench.UsageError, match="two prompts of the split 'twice' have the id '0'"):
        orbench.evaluate(ScriptedModel(ANSWER), splits=twice, out=tmp_path)


def test_loaded_splits_names_and_paths_can_be_mixed(tmp_path, split_file):
    path = tmp_path / "paths.jsonl"
    path.write_text('{"prompt": "Why is the sky blue?", "kind": "safe"}\n')
    result = orbench.evaluate(
        ScriptedModel(ANSWER), splits=[split(), split_file("toxic"), path, "sample/safe"], limit=2, out=tmp_path / "run"
    )
    assert {name: found.prompts for name, found in result.splits.items()} == {
        "mine-safe": 2,
        "toxic": 2,
        "paths": 1,
        "sample/safe": 2,
    }


def test_the_progress_bar_counts_what_is_done_already(tmp_path, capsys):
    orbench.evaluate(ScriptedModel(Numbered(n1=ValueError("odd"))), splits=[split()], out=tmp_path, progress=False)
    assert capsys.readouterr().err == ""
    orbench.evaluate(ScriptedModel(ANSWER), splits=[split()], out=tmp_path, progress=True)
    assert "5/6" in capsys.readouterr().err


def test_a_run_that_goes_on_at_another_address_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback-key")
    with LoopbackServer(refusing(1.0)) as one, LoopbackServer(refusing(0.0)) as two:
        where = {"out": tmp_path / "run", "progress": False, "scorer": "keywords"}
        orbench.evaluate("openai/mine", splits="sample", base_url=one.base_url, **where)
        result = orbench.evaluate("openai/mine", splits="sample", base_url=two.base_url, **where)
    assert two.answered == 0
    assert f"asked at another address before ({one.base_url}/)" in " ".join(str(result).split())
    assert result.over_refusal_rate.value == 1.0
    assert json.loads((tmp_path / "run/run.json").read_text())["earlier_base_urls"] == [f"{one.base_url}/"]


def test_options_of_an_engine_that_nothing_takes_are_wrong_usage():
    with pytest.raises(orbench.UsageError, match="--engine-option is for models of hf/ and vllm/"):
        orbench.evaluate("baseline/always-answer", splits="sample", model_options={"engine": {"foo": 16}})


def denying(some):
    """Answers, but for the prompts of which `some` is true: access is denied, as a service says it in JSON."""
    denied = (403, {"error": {"message": "This request is not allowed.", "code": "forbidden"}})
    return lambda body: denied if some(prompt_of(body)) else ANSWER


@pytest.mark.parametrize("form", ["openai", "anthropic", "google", "openai+self-reminder", "openai --batch"])
def test_a_run_left_with_nothing_but_denied_prompts_does_not_take_the_key_for_wrong(tmp_path, form):
    provider, batch = form.split("+")[0].split(" ")[0], form.endswith("--batch")
    options = {"splits": [split()], "out": tmp_path / "run", "progress": False, "concurrency": 1, "batch": batch}
    with LoopbackServer(denying(lambda prompt: "question 2" in prompt or "question 4" in prompt)) as server:
        url = server.base_url if provider == "openai" else server.root_url

        def model():
            if "+" not in form:
                return f"{provider}/any"
            return defend(open_model(f"{provider}/any", Options(base_url=url)), form.partition("+")[2])

        for command in range(2):  # the second begins with what is denied, before any reply of its own
            result = orbench.evaluate(model(), base_url=url, **options)
            assert result.open == 2, command
        assert {row.error for row in result.rows(outcome="error")} == {"HTTP 403: This request is not allowed."}
        assert server.answered > 0
    with LoopbackServer(ANSWER) as server:
        url = server.base_url if provider == "openai" else server.root_url
        assert orbench.evaluate(model(), base_url=url, **options).open == 0


def test_access_that_is_denied_before_any_reply_of_the_run_stops_it(tmp_path):
    with LoopbackServer(denying(lambda prompt: True)) as server:
        for _ in range(2):
            with pytest.raises(orbench.ModelError, match="access denied"):
                orbench.evaluate(
                    "openai/any", base_url=server.base_url, splits=[split()], out=tmp_path / "run", concurrency=1
                )
        assert len(server.requests) == 2
        assert not list(read_responses(tmp_path / "run"))


def test_a_key_that_was_good_and_is_so_no_more_stops_the_run_that_goes_on(tmp_path):
    options = {"splits": [split(rows=60)], "out": tmp_path / "run", "progress": False, "concurrency": 1}
    with LoopbackServer(denying(lambda prompt: "question 0?" not in prompt)) as server:
        for _ in range(2):
            with pytest.raises(orbench.ModelError, match="denied 20 times in a row"):
                orbench.evaluate("openai/any", base_url=server.base_url, **options)


def test_prompts_that_were_never_asked_come_before_those_that_are_denied_each_time(tmp_path):
    options = {"splits": [split(rows=60)], "out": tmp_path / "run", "progress": False, "concurrency": 1}

    def denied(prompt):
        return int(re.search(r"question (\d+)", prompt)[1]) in {*range(1, 20), *range(21, 40)}

    def first(body):
        ends = "question 41?" in prompt_of(body)
        return (401, {"error": {"message": "Expired."}}) if ends else denying(denied)(body)

    for answer in (first, denying(denied)):
        with LoopbackServer(answer) as server, pytest.raises(orbench.ModelError):
            orbench.evaluate("openai/any", base_url=server.base_url, **options)
    answered = {row.prompt for row in read_responses(tmp_path / "run") if row.error is None}
    assert sum("question" in prompt for prompt in answered) == 22
    assert not any(map(denied, answered))


def test_concurrency_bounds_the_calls_to_each_judge_too(tmp_path):
    def slow(label):
        async def answer(text):
            for _ in range(50):  # others come meanwhile
                await asyncio.sleep(0)
            return label

        return answer

    def peaks():
        return {used["peak"] for used in read_config(run)["judge_concurrency_used"].values()}

    toxic = split("toxic", rows=40)
    given = {"splits": [toxic], "scorer": "judge", "judge": slow(LABEL), "safety_judge": slow("[[safe]]")}
    run = orbench.evaluate(ScriptedModel("Hm."), out=tmp_path / "run", concurrency=3, **given).run
    assert peaks() == {3}
    orbench.score(run, judge=slow(LABEL), judge_template="two-classes", scorer="judge", concurrency=2)
    assert peaks() == {2}
    with pytest.raises(orbench.UsageError, match="concurrency is 0: at least 1"):
        orbench.score(run, scorer="keywords", concurrency=0)


@pytest.mark.parametrize("role", ["judge", "safety_judge"])
def test_a_judge_who_is_denied_a_reply_it_was_left_with_fails_on_that_reply_alone(tmp_path, role):
    kind = "toxic" if role == "safety_judge" else "safe"
    target = ScriptedModel(lambda request: f"Hm, {request.prompt}")
    run = orbench.evaluate(target, splits=[split(kind)], out=tmp_path / "run", scorer="keywords").run

    def answer(body):
        if prompt_of(body).count("question 3"):
            return 403, {"error": {"message": "This request is not allowed."}}
        return "It is fine. [[safe]]" if role == "safety_judge" else LABEL

    with LoopbackServer(answer) as server:
        given = {role: "openai/judge", "judge_base_url": server.base_url, "scorer": "keywords"}
        given |= {"scorer": "judge"} if role == "judge" else {}
        for command in range(2):
            result = orbench.score(run, **given)
            assert len(lines(run)[1]) == 6, command
        assert result.open == 1
