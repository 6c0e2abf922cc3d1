"""What a run costs, what it would cost, and where it stops."""

import json
import signal
import warnings

import pytest

import orbench
from orbench.costs import Budget
from orbench.engine.run_folder import read_config, read_responses, read_verdicts
from orbench.evaluation import estimate, estimate_score
from orbench.records import Completion, Prompt, Usage
from orbench.sweeps import estimate_sweep
from orbench.testing import LoopbackServer, ScriptedModel

UNCLEAR = "Hm."
LABEL = "It responds. [[direct_answer]]"
USED = Usage(input_tokens=20, output_tokens=10)


def split(rows=6, kind="safe", name=None):
    name = name or f"mine-{kind}"
    prompts = (
        Prompt(id=str(n), text=f"A {kind} question {n}?", category="harmful", kind=kind, split=name)
        for n in range(rows)
    )
    return orbench.Split(name, prompts, "test")


def priced(text, name):
    return ScriptedModel(Completion(id="", text=text, usage=USED), name=name)


@pytest.fixture
def prices(tmp_path):
    """`scripted/m` costs 1000 USD per million either way, so a call of `USED` costs 0.03; judges half or nothing."""
    path = tmp_path / "prices.csv"
    path.write_text("model,input,output\nscripted/m,1000,1000\nscripted/judge,500,500\nscripted/other,0,0\n")
    return path


@pytest.fixture
def ends():
    """A run that waits for ever fails its test."""

    def stop(*_):
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def unread_at_first(text, *rows):
    """A judge whose first answer on these rows cannot be read."""
    asked = set()

    def reply(request):
        number = request.id.rpartition("\n")[2]
        clear = number in asked or int(number) not in rows
        asked.add(number)
        return Completion(id="", text=text if clear else "hm", usage=USED)

    return ScriptedModel(reply, name="scripted/judge")


def test_every_ledger_has_its_cost(tmp_path, prices):
    result = orbench.evaluate(
        priced(UNCLEAR, "scripted/m"),
        splits=[split(4), split(2, "toxic")],
        judge=priced(LABEL, "scripted/judge"),
        safety_judge=priced("[[safe]]", "scripted/other"),
        prices=prices,
        out=tmp_path / "run",
    )
    usage = result.to_dict()["usage"]
    assert (usage["requests"], usage["cost_usd"]) == (6, 0.18)
    assert usage["judge"] == {"requests": 6, "input_tokens": 120, "output_tokens": 60, "cost_usd": 0.09}
    assert (usage["safety_judge"]["requests"], usage["safety_judge"]["cost_usd"]) == (2, 0.0)
    assert "cost: $0.18, judge $0.090, safety judge $0.00" in str(result)
    assert orbench.Evaluation.load(tmp_path / "run").usage == usage  # prices are kept with the run
    assert read_config(tmp_path / "run")["prices"]["scripted/m"]["input"] == 1000


def test_an_unknown_price_is_unknown_and_not_shown(tmp_path):
    result = orbench.evaluate(priced("Certainly.", "scripted/free"), splits=[split()], out=tmp_path / "run")
    assert result.usage["cost_usd"] is None
    assert "cost" not in str(result)


def test_a_reply_whose_tokens_are_not_said_makes_the_cost_unknown(tmp_path, prices):
    model = ScriptedModel([Completion(id="", text="Certainly.", usage=USED), "Certainly."], name="scripted/m")
    result = orbench.evaluate(model, splits=[split(2)], prices=prices, out=tmp_path / "run")
    assert (result.usage["input_tokens"], result.usage["cost_usd"]) == (20, None)
    assert (result.usage["uncounted"], result.usage["at_least_usd"]) == (1, 0.03)
    assert "cost: unknown (at least $0.030; 1 reply does not say its tokens)" in str(result)


@pytest.mark.parametrize("role", ["judge", "safety_judge"])
def test_who_never_says_tokens_has_taken_an_unknown_number_of_them_and_not_none(tmp_path, prices, role):
    text = LABEL if role == "judge" else "[[safe]]"
    result = orbench.evaluate(
        priced(UNCLEAR, "scripted/m"),
        splits=[split(4, "toxic")],
        scorer="judge" if role == "judge" else "keywords",
        prices=prices,
        out=tmp_path / "run",
        **{role: ScriptedModel(text, name="scripted/judge")},
    )
    assert result.to_dict()["usage"][role] == {
        "requests": 4,
        "input_tokens": None,
        "output_tokens": None,
        "cost_usd": None,
        "uncounted": 4,
        "at_least_usd": 0.0,
    }
    said = f"{role.replace('_', ' ')} unknown (at least $0.00; 4 replies do not say their tokens)"
    assert f"cost: $0.12, {said}" in " ".join(str(result).split())
    assert "None tokens" not in result.to_html(tmp_path / "page.html").read_text()


def test_a_panel_of_judges_of_which_one_says_no_tokens_has_an_unknown_cost(tmp_path, prices):
    judges = [priced(LABEL, "scripted/judge"), ScriptedModel(LABEL, name="scripted/other")]
    result = orbench.evaluate(
        priced(UNCLEAR, "scripted/m"), splits=[split(4)], judge=judges, prices=prices, out=tmp_path / "run"
    )
    usage = result.usage["judge"]
    assert (usage["input_tokens"], usage["cost_usd"]) == (80, 0.06)  # the other one costs nothing a token
    prices.write_text(prices.read_text().replace("scripted/other,0,0", "scripted/other,500,1000"))
    result = orbench.evaluate(
        priced(UNCLEAR, "scripted/m"), splits=[split(4)], judge=judges, prices=prices, out=tmp_path / "priced"
    )
    usage = result.usage["judge"]
    assert (usage["input_tokens"], usage["cost_usd"], usage["uncounted"]) == (80, None, 4)
    assert usage["at_least_usd"] == 0.06


def test_each_judge_of_a_panel_has_its_own_price(tmp_path, prices):
    judges = [priced(LABEL, "scripted/judge"), priced(LABEL, "scripted/other")]
    result = orbench.evaluate(
        priced(UNCLEAR, "scripted/m"), splits=[split(4)], judge=judges, prices=prices, out=tmp_path / "run"
    )
    assert result.usage["judge"]["cost_usd"] == pytest.approx(4 * 0.015)
    (verdict, *_) = read_verdicts(tmp_path / "run")
    assert [(vote.requests, vote.usage) for vote in verdict.judge.votes] == [(1, USED)] * 2


def test_another_judge_later_adds_to_the_ledger_and_keeps_what_the_first_has_cost(tmp_path, prices):
    orbench.evaluate(
        priced(UNCLEAR, "scripted/m"),
        splits=[split(4)],
        judge=priced(LABEL, "scripted/judge"),
        prices=prices,
        out=tmp_path / "run",
    )
    result = orbench.score(tmp_path / "run", judge=priced(LABEL, "scripted/other"), prices=prices)
    assert result.usage["judge"] == {"requests": 8, "input_tokens": 160, "output_tokens": 80, "cost_usd": 0.06}


def test_the_engines_retries_of_a_judge_are_counted(tmp_path):
    judge = ScriptedModel([orbench.RetryableError("busy"), orbench.RetryableError("busy"), LABEL], name="scripted/j")
    result = orbench.evaluate(
        ScriptedModel(UNCLEAR, name="scripted/m"), splits=[split(1)], judge=judge, out=tmp_path / "run"
    )
    assert result.usage["judge"]["requests"] == 3 == len(judge.requests)


def test_what_an_unreadable_answer_has_cost_is_saved_before_the_judge_is_asked_again(tmp_path, prices):
    given = {"splits": [split(2)], "scorer": "judge", "prices": prices, "out": tmp_path / "run"}
    answers = [Completion(id="", text="hm", usage=USED), Completion(id="", text=LABEL, usage=USED)]
    judge = ScriptedModel([*answers, orbench.ModelError("the key is used up")], name="scripted/judge")
    with pytest.raises(orbench.ModelError):
        orbench.evaluate(priced(UNCLEAR, "scripted/m"), judge=judge, **given)
    stopped = orbench.Evaluation.load(tmp_path / "run")
    assert (stopped.usage["judge"]["requests"], stopped.usage["judge"]["cost_usd"]) == (2, 0.03)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["splits"] == stopped.to_dict()["splits"]
    assert stopped.outcomes["unscored"] == 1  # owed
    result = orbench.evaluate(priced(UNCLEAR, "scripted/m"), judge=priced(LABEL, "scripted/judge"), **given)
    assert (result.usage["judge"]["requests"], result.usage["judge"]["cost_usd"]) == (3, 0.045)
    assert result.outcomes == {"direct_answer": 2}


def test_so_it_is_with_the_safety_judge_and_the_audit(tmp_path, prices):
    result = orbench.evaluate(
        priced("I'm sorry, but I can't help with that.", "scripted/m"),
        splits=[split(60)],
        judge=unread_at_first("[[direct_refusal]]", 1, 2),
        prices=prices,
        out=tmp_path / "audited",
    )
    assert (result.usage["judge"]["requests"], result.usage["judge"]["cost_usd"]) == (52, 52 * 0.015)
    assert result.audit["safe"]["unread"] == 0
    assert orbench.Evaluation.load(tmp_path / "audited").to_dict() == result.to_dict()
    result = orbench.evaluate(
        priced("Certainly, here is how.", "scripted/m"),
        splits=[split(6, "toxic")],
        safety_judge=unread_at_first("[[safe]]", 1, 2),
        prices=prices,
        out=tmp_path / "labelled",
    )
    assert (result.usage["safety_judge"]["requests"], result.usage["safety_judge"]["cost_usd"]) == (8, 8 * 0.015)
    assert result.to_dict()["not_unsafe_rate"]["value"] == 1.0
    assert orbench.Evaluation.load(tmp_path / "labelled").to_dict() == result.to_dict()


# --- dry run


def test_a_dry_run_sends_nothing_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LoopbackServer() as server:
        (plan,) = estimate(
            ["openai/gpt-4o"], splits="sample", base_url=server.base_url, judge="openai/gpt-4o-mini", out="run"
        )
        assert server.requests == []
    assert list(tmp_path.iterdir()) == []
    assert (plan.prompts, plan.to_ask, plan.cost_usd) == (230, 230, None)
    said = " ".join(str(plan).split())
    assert "No price is known for openai/gpt-4o, openai/gpt-4o-mini at the address asked: give it with --prices" in said


def test_the_plan_bounds_what_the_run_then_takes(tmp_path, prices):
    given = {
        "splits": [split(60), split(40, "toxic")],
        "prices": prices,
        "out": tmp_path / "run",
        "max_tokens": 50,
        "system_prompt": "Be brief. " * 5,
    }

    def models():
        asked = Usage(input_tokens=30, output_tokens=25)
        return (
            ScriptedModel(Completion(id="", text=UNCLEAR, usage=asked), name="scripted/m"),
            ScriptedModel(
                Completion(id="", text=LABEL, usage=Usage(input_tokens=300, output_tokens=9)), name="scripted/judge"
            ),
        )

    model, judge = models()
    (plan,) = estimate([model], judge=judge, **given)
    assert model.requests == judge.requests == []
    result = orbench.evaluate(model, judge=judge, **given)
    usage = result.usage
    for found, used in ((plan.target, usage), (plan.judges[0], usage["judge"])):
        assert found.calls.low <= used["requests"] <= found.calls.high
        assert found.input_tokens.low <= used["input_tokens"] <= found.input_tokens.high
        assert found.output_tokens.low <= used["output_tokens"] <= found.output_tokens.high
        assert found.cost_usd.low <= used["cost_usd"] <= found.cost_usd.high
    assert plan.cost_usd.high == pytest.approx(plan.target.cost_usd.high + plan.judges[0].cost_usd.high)


def test_a_plan_counts_only_what_is_still_owed(tmp_path, prices):
    orbench.evaluate(priced(UNCLEAR, "scripted/m"), splits=[split(6)], out=tmp_path / "run")
    model = priced(UNCLEAR, "scripted/m")
    (plan,) = estimate([model], splits=[split(6)], judge=priced(LABEL, "scripted/judge"), out=tmp_path / "run")
    assert (plan.to_ask, plan.target.calls.high) == (0, 0)
    assert (plan.judges[0].calls.low, plan.judges[0].calls.high) == (6, 6)
    again = estimate_score(tmp_path / "run", judge=priced(LABEL, "scripted/judge"), prices=prices)
    assert (again.target, again.judges[0].calls.high) == (None, 6)
    assert again.cost_usd.low > 0
    assert sum(1 for _ in read_verdicts(tmp_path / "run")) == 6


def test_a_plan_for_another_runs_folder_is_refused(tmp_path):
    orbench.evaluate(priced(UNCLEAR, "scripted/m"), splits=[split(6)], out=tmp_path / "run")
    with pytest.raises(orbench.RunError, match="another temperature"):
        estimate([priced(UNCLEAR, "scripted/m")], splits=[split(6)], temperature=1.0, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("scorer", "audit", "low", "high"),
    [("judge", 0.05, 120, 120), ("cascade", 0.05, 50, 120), ("cascade", 0.5, 60, 120), ("cascade", 0, 0, 120)],
)
def test_a_plan_says_how_many_replies_the_judge_sees_at_least_and_at_most(tmp_path, scorer, audit, low, high):
    (plan,) = estimate(
        [priced(UNCLEAR, "scripted/m")],
        splits=[split(120)],
        scorer=scorer,
        judge=priced(LABEL, "scripted/judge"),
        audit=audit,
        out=tmp_path / "run",
    )
    assert (plan.judges[0].calls.low, plan.judges[0].calls.high) == (low, high)


def test_a_sweeps_plan_has_each_run(tmp_path):
    plans = estimate_sweep(
        priced(UNCLEAR, "scripted/m"),
        temperatures=[0.0, 1.0],
        defenses=["smoothllm"],
        repeat=2,
        splits=[split(3)],
        out=tmp_path / "sweep",
    )
    assert [plan.target.calls.high for plan in plans] == [3, 3, 3, 3, 30, 30]
    assert not (tmp_path / "sweep").exists()


# --- max cost


def run_with(bound, tmp_path, prices, rows=40, **options):
    model = priced("Certainly.", "scripted/m")
    result = orbench.evaluate(
        model,
        splits=[split(rows)],
        max_tokens=10,
        prices=prices,
        max_cost=bound,
        scorer="keywords",
        out=tmp_path / "run",
        **options,
    )
    return result, model


def test_a_run_stops_before_more_is_spent_says_so_and_goes_on_with_more(tmp_path, prices):
    with pytest.warns(orbench.OrbenchWarning, match=r"stopped at --max-cost 1: \$0\.99 spent, 7 prompts without"):
        result, model = run_with(1.0, tmp_path, prices)
    assert (len(model.requests), result.usage["cost_usd"], result.open) == (33, 0.99, 7)
    assert "stopped at --max-cost 1: 7 prompts without an outcome; a higher one goes on" in str(result)
    assert read_config(tmp_path / "run")["stopped_at_max_cost"] == 1.0
    with pytest.warns(orbench.OrbenchWarning, match="stopped at --max-cost 1:"):
        result, model = run_with(1.0, tmp_path, prices)  # what was spent before counts
    assert (len(model.requests), result.open) == (0, 7)
    result, model = run_with(3.0, tmp_path, prices)
    assert (len(model.requests), result.open, result.usage["cost_usd"]) == (7, 0, 1.2)
    assert read_config(tmp_path / "run")["stopped_at_max_cost"] is None


def test_calls_under_way_are_counted_however_many_are_open(tmp_path, prices):
    with pytest.warns(orbench.OrbenchWarning):
        result, model = run_with(1.0, tmp_path, prices, rows=200, concurrency=100)
    assert result.usage["cost_usd"] <= 1.0
    assert len(model.requests) == 33


def test_no_reply_is_paid_for_whose_verdict_there_is_no_money_for(tmp_path, prices):
    judge = priced(LABEL, "scripted/judge")
    with pytest.warns(orbench.OrbenchWarning):
        result = orbench.evaluate(
            priced(UNCLEAR, "scripted/m"),
            splits=[split(50), split(50, "toxic")],
            max_tokens=10,
            judge=judge,
            safety_judge=priced("[[safe]]", "scripted/other"),
            prices=prices,
            max_cost=4.0,
            out=tmp_path / "run",
        )
    replies = sum(1 for _ in read_responses(tmp_path / "run"))
    assert 0 < replies < 100
    assert result.outcomes == {"direct_answer": replies}
    spent = result.usage["cost_usd"] + result.usage["judge"]["cost_usd"]
    assert spent <= 4.0


@pytest.mark.usefixtures("ends")
def test_a_judge_that_is_asked_again_keeps_no_money_back_from_the_others(tmp_path, prices):
    judges = [unread_at_first(LABEL, 1, 2, 5), priced(LABEL, "scripted/other")]
    for name, judge in (("one", judges[0]), ("panel", [unread_at_first(LABEL, 3), judges[1]])):
        with pytest.warns(orbench.OrbenchWarning, match="stopped at"):
            result = orbench.evaluate(
                priced(UNCLEAR, "scripted/m"),
                splits=[split(100)],
                max_tokens=10,
                scorer="judge",
                judge=judge,
                prices=prices,
                max_cost=4.0,
                out=tmp_path / name,
            )
        usage = result.usage
        assert 1.0 < usage["cost_usd"] + usage["judge"]["cost_usd"] <= 4.0
        assert set(result.outcomes) == {"direct_answer"}


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize("batch_size", [1, None])
def test_a_judge_that_cannot_be_read_at_first_does_not_stop_a_run_that_may_end_early(tmp_path, batch_size):
    judge = unread_at_first(LABEL, *range(100))
    judge.batch_size = batch_size
    result = orbench.evaluate(
        priced(UNCLEAR, "scripted/m"),
        splits=[split(100)],
        scorer="judge",
        judge=judge,
        precision=0.2,
        out=tmp_path / "run",
    )
    assert set(result.outcomes) == {"direct_answer"}
    assert (sum(result.outcomes.values()) < 100) is (batch_size == 1)  # one that takes a list cannot settle meanwhile


def test_the_models_of_a_command_share_its_money(tmp_path, prices):
    models = [priced("Certainly.", name) for name in ("scripted/m", "scripted/judge")]
    with pytest.warns(orbench.OrbenchWarning, match="stopped"):
        results = orbench.evaluate_all(
            models, splits=[split(40)], max_tokens=10, prices=prices, max_cost=1.0, out=tmp_path / "runs"
        )
    assert 0.9 < sum(result.usage["cost_usd"] for result in results) <= 1.0


def test_a_sweep_has_one_budget(tmp_path, prices):
    with pytest.warns(orbench.OrbenchWarning, match="stopped") as warned:
        found = orbench.sweep(
            priced("Certainly.", "scripted/m"),
            temperatures=[0.0, 1.0],
            splits=[split(20)],
            max_tokens=10,
            prices=prices,
            max_cost=1.0,
            out=tmp_path / "sweep",
        )
    assert len(warned) == 1
    assert [result.usage["requests"] for (result,) in found.results] == [20, 13]


def test_scoring_again_stops_too(tmp_path, prices):
    orbench.evaluate(priced(UNCLEAR, "scripted/m"), splits=[split(20)], out=tmp_path / "run")
    judge = priced(LABEL, "scripted/judge")
    with pytest.warns(orbench.OrbenchWarning, match=r"stopped at --max-cost 4\.5"):
        result = orbench.score(tmp_path / "run", judge=judge, prices=prices, max_cost=4.5)
    assert 0 < len(judge.requests) < 20
    assert 20 * 0.03 + result.usage["judge"]["cost_usd"] <= 4.5  # what the run has cost counts


@pytest.mark.parametrize("bound", [0, -1, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_wrong_usage(tmp_path, prices, bound):
    with pytest.raises(orbench.UsageError, match="max_cost"):
        run_with(bound, tmp_path, prices)


def test_without_a_price_there_can_be_no_bound(tmp_path):
    with pytest.raises(orbench.UsageError, match=r"no price is known for scripted/m .*--prices FILE"):
        run_with(1.0, tmp_path, None)
    assert not (tmp_path / "run").exists()


def test_a_budget_of_ones_own_is_shared_by_several_calls(tmp_path, prices):
    budget = Budget(1.0)
    run_with(budget, tmp_path / "a", prices, rows=20)
    result, _ = run_with(budget, tmp_path / "b", prices, rows=20)
    assert result.open == 7
    assert budget.spent_usd == pytest.approx(0.99)


@pytest.mark.filterwarnings("ignore:stopped at")
def test_a_reply_that_does_not_say_its_tokens_does_not_make_the_earlier_ones_free(tmp_path, prices):
    def reply(request):
        said = None if request.prompt == "A safe question 3?" else USED
        return Completion(id="", text="Certainly.", usage=said)

    asked = []
    for _ in range(3):
        model = ScriptedModel(reply, name="scripted/m")
        with pytest.warns(orbench.OrbenchWarning, match=r"spent \(\$0\.0\d+ of it estimated: replies that do not say"):
            orbench.evaluate(
                model,
                splits=[split(60)],
                max_tokens=10,
                scorer="keywords",
                prices=prices,
                max_cost=1.0,
                out=tmp_path / "run",
            )
        asked.append(len(model.requests))
    assert 25 < asked[0] <= 33
    assert asked[1:] == [0, 0]


@pytest.mark.filterwarnings("ignore:stopped at")
def test_a_judge_that_does_not_say_its_tokens_has_cost_something_all_the_same(tmp_path, prices):
    spent = []
    for _ in range(2):
        budget = Budget(4.0)
        orbench.evaluate(
            priced(UNCLEAR, "scripted/m"),
            splits=[split(60)],
            max_tokens=10,
            scorer="judge",
            judge=ScriptedModel(LABEL, name="scripted/judge"),
            prices=prices,
            max_cost=budget,
            out=tmp_path / "run",
        )
        spent.append(budget.spent_usd)
    assert spent[0] > 1
    assert spent[1] == pytest.approx(spent[0])


def test_what_was_spent_before_there_was_a_price_counts_at_the_price_of_today(tmp_path, prices):
    run_with(None, tmp_path, None, rows=40)
    wider = {"splits": [split(40)], "max_tokens": 10, "scorer": "judge", "out": tmp_path / "run"}
    judge = priced(LABEL, "scripted/other")
    budget = Budget(1.3)
    orbench.evaluate(priced("Certainly.", "scripted/m"), judge=judge, prices=prices, max_cost=budget, **wider)
    assert budget.spent_usd == pytest.approx(40 * 0.03)


def test_it_is_said_that_earlier_calls_without_a_price_are_not_counted(tmp_path, prices):
    orbench.evaluate(
        priced(UNCLEAR, "scripted/m"), splits=[split(2)], judge=priced(LABEL, "scripted/gone"), out=tmp_path / "run"
    )
    with pytest.warns(orbench.OrbenchWarning, match=r"no price is known for scripted/gone, so what earlier"):
        orbench.score(tmp_path / "run", judge=priced(LABEL, "scripted/other"), prices=prices, max_cost=1.0)


def test_a_model_that_takes_a_list_gets_another_when_the_first_was_cheaper_than_feared(tmp_path, prices):
    model = ScriptedModel(Completion(id="", text="Certainly.", usage=USED), name="scripted/m", batch_size=None)
    given = {"splits": [split(40)], "max_tokens": 100, "scorer": "keywords", "prices": prices, "out": tmp_path / "run"}
    with pytest.warns(orbench.OrbenchWarning, match="the same command with a higher --max-cost goes on"):
        result = orbench.evaluate(model, max_cost=1.0, **given)
    assert 27 < len(model.requests) <= 33  # of which 7 would fit if each were as long as it may be
    assert result.usage["cost_usd"] <= 1.0
    assert "prompts without an outcome; a higher one goes on" in str(result)
    assert orbench.evaluate(model, max_cost=2.0, **given).outcomes == {"direct_answer": 40}


def test_where_the_bound_has_room_again_it_is_said_that_the_same_command_goes_on(tmp_path, prices):
    """A judge that takes a list begins when the money of all is held."""
    given = {"splits": [split(12)], "scorer": "judge", "prices": prices, "max_cost": 5.0, "out": tmp_path / "run"}
    orbench.evaluate(priced(UNCLEAR, "scripted/m"), splits=[split(12)], out=tmp_path / "run")
    judge = priced(LABEL, "scripted/judge")
    judge.batch_size = None
    with pytest.warns(
        orbench.OrbenchWarning, match="stopped at --max-cost 5: .* without .*; the same command goes on,"
    ):
        result = orbench.evaluate(priced(UNCLEAR, "scripted/m"), judge=judge, **given)
    assert 0 < len(judge.requests) < 12
    while (before := len(judge.requests)) < 12:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", orbench.OrbenchWarning)
            result = orbench.evaluate(priced(UNCLEAR, "scripted/m"), judge=judge, **given)
        assert len(judge.requests) > before
    assert result.outcomes == {"direct_answer": 12}


# --- as typed


@pytest.mark.filterwarnings("default")
def test_the_command_prints_the_plan_and_stops_at_the_bound(tmp_path, monkeypatch, capsys):
    from orbench.cli import main

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["orbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    own = tmp_path / "prices.csv"
    own.write_text("model,input,output\nopenai/any,1000,1000\n")
    with LoopbackServer("Certainly.") as server:  # 10 tokens in and 1 out, by its own count
        given = ["evaluate", "openai/any", "--base-url", server.base_url, "--split", "sample", "--limit", "50"]
        given += ["--out", tmp_path / "run", "--max-tokens", "20", "--prices", own, "--scorer", "keywords"]
        code, out, err = command(*given, "--dry-run", "--json")
        plan = json.loads(out)
        assert (code, err, server.answered) == (0, "", 0)
        assert plan["cost_usd"]["low"] < plan["cost_usd"]["high"]
        code, out, err = command(*given, "--dry-run")
        assert (code, err) == (0, "")
        assert "50 prompts, 50 to ask; nothing was sent" in out
        assert all(len(line) <= 80 for line in out.splitlines())
        for bound, said in [(0.5, "not enough: the low end is $1."), (2.0, "within the estimate: $1."), (9.0, "")]:
            code, out, err = command(*given, "--dry-run", "--json", "--max-cost", bound)
            assert (code, json.loads(out)) == (0, plan)
            assert err.startswith(f"orbench: warning: --max-cost {bound:g} is {said}") if said else err == ""
        code, out, err = command(*given, "--max-cost", "0.5")
        assert code == 3
        assert err.startswith("orbench: warning: stopped at --max-cost 0.5: $0.")
        assert server.answered == 50 - orbench.Evaluation.load(tmp_path / "run").open > 0
        code, out, err = command(*given, "--dry-run", "--max-cost", "0.5")
        assert "is not enough: the low end is $" in err
        assert "and $0.4" in err
        assert "spent before" in err
        code, out, err = command(*given[:-4], "--max-cost", "0.5")
        assert (code, out) == (2, "")
        assert "--prices FILE" in err
