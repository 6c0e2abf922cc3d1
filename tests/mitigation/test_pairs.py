"""Preference pairs from a run."""

import asyncio
import importlib.util
import warnings
from pathlib import Path

import msgspec
import pytest

import orbench
from orbench.errors import OrbenchWarning, RunError, UsageError
from orbench.mitigation.pairs import estimate_pairs, make_pairs
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.records import Completion, Usage
from orbench.testing import ScriptedModel

# tests are imported by path, so that their helpers are too
_spec = importlib.util.spec_from_file_location("mitigation_helpers", Path(__file__).with_name("conftest.py"))
helpers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helpers)
lines, texts = helpers.lines, helpers.texts


def make(run, teacher, **options):
    return make_pairs(run, **{"teacher": teacher, "out": "pairs", "progress": False, "validation": 0.1, **options})


def guard(bad):
    """A moderator that finds replies with the word unsafe."""
    return ScriptedModel(
        lambda request: f"Thus [[{'unsafe' if bad in request.prompt else 'safe'}]]", name="scripted/moderator"
    )


def test_an_over_refused_prompt_becomes_the_teachers_answer_over_the_own_refusal(cautious, teacher):
    made = make(cautious(), teacher)
    rows = lines(made.folder / "train.jsonl")
    assert rows
    for row in rows:
        assert set(row) == {"prompt", "chosen", "rejected", "prompt_id", "kind", "seed_id", "group_id"}
        assert row["kind"] == "safe"
        assert [turn["role"] for turn in row["prompt"] + row["chosen"]] == ["user", "assistant"]
        assert row["chosen"][0]["content"].startswith("Certainly. To " + row["prompt"][0]["content"].split()[0])
        assert row["rejected"][0]["content"] == REFUSAL


def test_refused_toxic_prompts_are_unpaired_and_want_their_refusal(cautious, teacher):
    made = make(cautious(), teacher)
    rows = lines(made.folder / "unpaired.jsonl")
    assert rows
    assert {(row["kind"], row["label"], row["completion"][0]["content"]) for row in rows} == {("toxic", True, REFUSAL)}


def test_a_stand_in_makes_pairs_of_refused_toxic_prompts(cautious, teacher):
    made = make(cautious(), teacher, stand_in="Here is what you asked for.")
    toxic = [row for row in lines(made.folder / "train.jsonl") if row["kind"] == "toxic"]
    assert toxic
    assert {row["rejected"][0]["content"] for row in toxic} == {"Here is what you asked for."}
    assert lines(made.folder / "unpaired.jsonl") == []


def test_an_answered_toxic_prompt_gets_the_teachers_refusal_over_the_own_answer(cautious, teacher):
    made = make(cautious(lambda prompt: "insult" in prompt), teacher)
    toxic = [row for row in lines(made.folder / "train.jsonl") if row["kind"] == "toxic"]
    assert toxic
    assert {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in toxic} == {
        ("I'm sorry, but I can't help with insults.", ANSWER)
    }


def test_an_answer_to_a_toxic_prompt_that_no_moderator_finds_unsafe_is_not_unlearned(cautious, teacher):
    made = make(cautious(lambda prompt: "insult" in prompt), teacher, moderators=[guard("no such text")])
    assert {row["kind"] for row in lines(made.folder / "train.jsonl")} == {"safe"}
    assert {row["kind"] for row in lines(made.folder / "unpaired.jsonl")} == {"toxic"}


def test_a_reply_that_a_moderator_finds_unsafe_is_dropped_and_counted(cautious, teacher):
    without = make(cautious(), teacher, out="without").card
    made = make("cautious", teacher, moderators=[guard("To kill")])
    assert made.card.dropped["moderated"] > 0
    assert not any("To kill" in row["chosen"][0]["content"] for row in lines(made.folder / "train.jsonl"))
    assert any("No moderator" in note for note in without.notes)
    assert not any("No moderator" in note for note in made.card.notes)


def half(text, **how):
    """A reply that ended before its model was done."""
    return lambda request: Completion(id=request.id, text=text, **how)


BLOCKED = {"blocked_by": "output", "finish_reason": "content_filter"}


def test_what_a_platform_blocked_midway_is_no_refusal_to_learn(here, prompts, teacher):
    def own(request):
        toxic = "insult" in request.prompt
        return half("Sure! Step one: you", **BLOCKED)(request) if toxic or "kill" in request.prompt else REFUSAL

    run = orbench.evaluate(ScriptedModel(own), splits=str(prompts()), out="run", progress=False).run
    made = make(run, teacher)
    assert not any("Step one" in (made.folder / name).read_text() for name in ("train.jsonl", "unpaired.jsonl"))
    assert made.card.dropped["own_blocked"] > 20
    assert not any("kill" in request.prompt for request in teacher.requests)


@pytest.mark.parametrize(
    ("how", "reason"), [(BLOCKED, "teacher_blocked"), ({"finish_reason": "length"}, "teacher_cut_off")]
)
def test_a_teachers_reply_that_broke_off_is_not_chosen(cautious, how, reason):
    def reply(request):
        safe = half("Certainly. To do it, open the", **how)
        broken = half("I'm sorry, but I can't help with", **how) if "insult" in request.prompt else safe
        return (
            broken(request) if "crash" in request.prompt or "short" in request.prompt else helpers.good_teacher(request)
        )

    made = make(cautious(lambda prompt: "insult" in prompt), ScriptedModel(reply, name="scripted/teacher"))
    rows = lines(made.folder / "train.jsonl")
    assert {row["kind"] for row in rows} == {"safe", "toxic"}
    assert not any(row["chosen"][0]["content"].endswith(("the", "with")) for row in rows)
    assert made.card.dropped[reason] > 8


def test_an_own_refusal_that_was_cut_off_is_not_learned(here, prompts, teacher):
    def own(request):
        return half("I'm sorry, but I can't help with", finish_reason="length")(request)

    run = orbench.evaluate(ScriptedModel(own), splits=str(prompts()), out="run", progress=False).run
    made = make(run, teacher)
    assert lines(made.folder / "unpaired.jsonl") == []
    assert made.card.dropped["own_cut_off"] > 20


def test_a_stand_in_is_the_bad_side_where_the_own_answer_is_not_found_unsafe(cautious, teacher):
    run = cautious(lambda prompt: "insult" in prompt)
    made = make(run, teacher, moderators=[guard("no such text")], stand_in="Here is what you asked for.")
    toxic = [row for row in lines(made.folder / "train.jsonl") if row["kind"] == "toxic"]
    assert {row["rejected"][0]["content"] for row in toxic} == {"Here is what you asked for."}


def test_a_teacher_that_nobody_can_read_wants_a_judge(cautious):
    with pytest.raises(RunError, match="--judge"):
        make(cautious(), ScriptedModel("Hmm.", name="scripted/teacher"))


PRICES = "model,input,output\nscripted/*,100,100\n"


def counted(reply):
    """A model whose calls take 100 tokens: $0.01 with the prices above."""
    usage = Usage(input_tokens=50, output_tokens=50)
    return lambda request: Completion(id=request.id, text=reply(request), usage=usage)


def test_teacher_and_moderators_share_one_bound_and_a_higher_one_goes_on(cautious, here):
    (here / "prices.csv").write_text(PRICES, encoding="utf-8")
    run = cautious(safe=30, toxic=10)
    teacher = ScriptedModel(counted(helpers.good_teacher), name="scripted/teacher")
    moderator = ScriptedModel(counted(lambda request: "Fine. [[safe]]"), name="scripted/moderator")
    options = {"moderators": [moderator], "prices": "prices.csv", "concurrency": 1, "max_tokens": 50}
    with pytest.warns(OrbenchWarning, match=r"stopped at --max-cost 0.8.*goes on"):
        made = make(run, teacher, max_cost=0.8, **options)
    asked = len(teacher.requests), len(moderator.requests)
    assert made.failed
    assert asked[0] == 27
    assert 0 < asked[1] < 27
    assert made.card.cost_usd == pytest.approx(
        {"teacher scripted/teacher": 0.27, "moderator scripted/moderator": 0.01 * asked[1]}
    )
    again = make(run, teacher, max_cost=5.0, **options)
    assert (len(teacher.requests), len(moderator.requests), again.failed) == (27, 27, 0)
    assert "scripted/moderator $0.27" in (again.folder / "card.md").read_text(encoding="utf-8")


def test_a_bound_without_a_price_of_a_moderator_asks_nobody(cautious, here):
    (here / "prices.csv").write_text("model,input,output\nscripted/teacher,1,1\n", encoding="utf-8")
    teacher = ScriptedModel(helpers.good_teacher, name="scripted/teacher")
    with pytest.raises(UsageError, match="scripted/moderator"):
        make(cautious(), teacher, moderators=[guard("x")], prices="prices.csv", max_cost=1.0)
    assert not teacher.requests


def test_a_dry_run_sends_and_writes_nothing_and_plans_only_what_is_new(cautious, teacher, here):
    (here / "prices.csv").write_text(PRICES, encoding="utf-8")
    moderator = guard("no such text")
    options = {"teacher": teacher, "moderators": [moderator], "out": "pairs", "prices": "prices.csv"}
    plan = estimate_pairs(cautious(), validation=0.4, held_out=0.1, **options)
    assert not teacher.requests + moderator.requests
    assert not (here / "pairs").exists()
    assert (plan.to_ask, plan.judges[0].calls.high) == (36, 36)
    assert plan.cost_usd.high == plan.target.cost_usd.high + plan.judges[0].cost_usd.high
    make_pairs("cautious", validation=0.4, held_out=0.1, progress=False, **options)
    plan = estimate_pairs("cautious", validation=0.0, held_out=0.1, **options)
    assert (plan.to_ask, plan.judges[0].calls.high) == (24, 24)


def test_concurrency_holds_for_moderators_too(cautious, teacher):
    class Watched(ScriptedModel):
        open = peak = 0

        async def generate(self, requests):
            Watched.open += 1
            Watched.peak = max(Watched.peak, Watched.open)
            for _ in range(50):
                await asyncio.sleep(0)
            Watched.open -= 1
            async for completion in super().generate(requests):
                yield completion

    make(cautious(), teacher, moderators=[Watched("[[safe]]", name="scripted/moderator")], concurrency=2)
    assert Watched.peak == 2


def test_two_moderators_of_one_name_are_one_too_many(cautious, teacher):
    with pytest.raises(UsageError, match="two moderators"):
        make(cautious(), teacher, moderators=[guard("a"), guard("b")])
    assert not teacher.requests


def test_other_parts_ask_only_what_is_new(cautious, teacher):
    make(cautious(), teacher, held_out=0.4, validation=0.3)
    asked = len(teacher.requests)
    again = make("cautious", teacher, held_out=0.1, validation=0.0)
    assert len(teacher.requests) == 60
    assert asked < 60
    assert again.failed == 0
    assert again.card.rows["train.jsonl"]["safe"] == 54
    make("cautious", teacher, held_out=0.4, validation=0.3)
    assert len(teacher.requests) == 60


def test_another_teacher_wants_another_folder(cautious, teacher):
    make(cautious(), teacher)
    with pytest.raises(RunError, match=r"scripted/teacher was asked there, not scripted/other: choose another --out$"):
        make("cautious", ScriptedModel(helpers.good_teacher, name="scripted/other"))


def test_replies_to_prompts_of_another_run_are_not_taken_for_this_ones(here, teacher, tmp_path):
    def run(name, ending):
        rows = "".join(f"{n},{text} {ending}\n" for n, text in enumerate(helpers.safe_prompts(30)))
        (tmp_path / "ids.csv").write_text(f"id,prompt\n{rows}", encoding="utf-8")
        return orbench.evaluate(ScriptedModel(REFUSAL), splits=f"safe={tmp_path / 'ids.csv'}", out=name, progress=False)

    make(run("one", "today"), teacher)
    with pytest.raises(RunError, match=r"another run.*--out"):
        make(run("two", "tomorrow"), teacher)


def test_a_moderator_that_cannot_be_read_lets_nothing_pass(cautious, teacher):
    with pytest.raises(RunError, match="moderator_unread"):
        make(cautious(), teacher, moderators=[ScriptedModel("well...", name="scripted/moderator")])


def test_a_call_that_failed_is_no_answer_that_cannot_be_read(cautious, teacher):
    """What to do is another thing: the same command again, not other moderators."""
    broken = ScriptedModel(RuntimeError("out of order"), name="scripted/moderator")
    with pytest.raises(RunError, match=r"moderator_failed \d+\. .*same command asks again"):
        make(cautious(), teacher, moderators=[broken])
    with pytest.raises(RunError, match=r"teacher_failed \d+ \(RuntimeError: out of order\)\. .*same command"):
        make("cautious", ScriptedModel(RuntimeError("out of order"), name="scripted/other"), out="other")


def test_no_prompt_and_no_group_is_in_two_parts(cautious, teacher):
    run = cautious(seeds=lambda kind, n: f"{kind}-{n // 4}")
    made = make(run, teacher, held_out=0.3)
    train = {row["prompt_id"] for name in ("train", "unpaired") for row in lines(made.folder / f"{name}.jsonl")}
    seeds = {row.prompt_id: row.seed_id for row in orbench.engine.run_folder.read_responses(Path(run))}
    held = {row.id: row.seed_id for row in orbench.load_split(made.folder / "held_out_prompts.csv")}
    chosen = {row.id: row.seed_id for row in orbench.load_split(made.folder / "validation_prompts.csv")}
    assert held
    assert chosen
    assert not {seeds[id_] for id_ in train} & set(held.values())
    assert not {seeds[id_] for id_ in train} & set(chosen.values())
    assert not set(held.values()) & set(chosen.values())
    assert {row["prompt_id"] for row in lines(made.folder / "held_out.jsonl")} <= set(held)


def test_a_part_that_groups_leave_too_small_is_said(cautious, teacher):
    made = make(cautious(seeds=lambda kind, n: "one" if kind == "safe" else ""), teacher, held_out=0.25)
    notes = "\n".join(made.card.notes)
    assert "held_out was to have 15 safe prompts and has 0" in notes
    assert "No safe prompt is held out" in notes
    assert "10 toxic prompts held out" in notes


def test_marked_groups_stay_together_and_every_file_tells_them(here, teacher, tmp_path):
    rows = "".join(f"{text},group-{n // 5}\n" for n, text in enumerate(helpers.safe_prompts(60)))
    (tmp_path / "grouped.csv").write_text(f"prompt,group_id\n{rows}", encoding="utf-8")
    splits = f"safe={tmp_path / 'grouped.csv'}"
    run = orbench.evaluate(ScriptedModel(REFUSAL), splits=splits, out="run", progress=False).run
    made = make(run, teacher)
    groups = {row["group_id"] for row in lines(made.folder / "train.jsonl")}
    held = {prompt.group_id for prompt in orbench.load_split(made.folder / "held_out_prompts.csv")}
    assert groups
    assert held
    assert not groups & held
    assert (made.card.groups, None in held, "" in groups) == (12, False, False)


def test_the_held_out_prompts_are_a_split_of_both_kinds_with_their_share(cautious, teacher):
    made = make(cautious(), teacher, held_out=0.25)
    split = orbench.load_split(made.folder / "held_out_prompts.csv")
    assert sum(prompt.kind == "safe" for prompt in split) == 15
    assert sum(prompt.kind == "toxic" for prompt in split) == 10


def test_the_same_call_again_asks_nobody_and_writes_the_same(cautious, teacher):
    moderator = guard("To kill")
    made = make(cautious(), teacher, moderators=[moderator])
    before = [(made.folder / name).read_bytes() for name in ("train.jsonl", "held_out.jsonl", "held_out_prompts.csv")]
    asked = len(teacher.requests), len(moderator.requests)
    make("cautious", teacher, moderators=[moderator])
    assert (len(teacher.requests), len(moderator.requests)) == asked
    assert before == [
        (made.folder / name).read_bytes() for name in ("train.jsonl", "held_out.jsonl", "held_out_prompts.csv")
    ]


def test_validation_prompts_are_not_shown_to_the_teacher(cautious, teacher):
    made = make(cautious(), teacher, validation=0.3)
    assert not set(texts(made.folder / "validation_prompts.csv")) & {request.prompt for request in teacher.requests}


def test_containment_drops_safe_pairs_until_toxic_rows_have_their_share(cautious, teacher):
    full = make(cautious(safe=90, toxic=20), teacher, out="full").card
    made = make("cautious", teacher, containment=0.5)
    safe = made.card.rows["train.jsonl"]["safe"]
    toxic = made.card.rows["unpaired.jsonl"]["toxic"]
    assert safe == toxic
    assert made.card.dropped["contained"] == full.rows["train.jsonl"]["safe"] - safe


def test_a_run_without_over_refusal_says_so(cautious, teacher):
    with pytest.raises(RunError, match="nothing to cure"):
        make(cautious(lambda prompt: "insult" not in prompt), teacher)


def test_a_teacher_that_refuses_too_is_an_error_that_counts_it(cautious):
    with pytest.raises(RunError, match="teacher_refused"):
        make(cautious(), ScriptedModel(REFUSAL, name="scripted/timid"))


def test_failed_calls_of_the_teacher_are_counted_and_tried_again(cautious, teacher):
    def failing(request):
        return RuntimeError("no") if "crash" in request.prompt else helpers.good_teacher(request)

    made = make(cautious(), ScriptedModel(failing, name="scripted/teacher"))
    assert made.failed == made.card.dropped["teacher_failed"] > 0
    again = make("cautious", teacher)
    assert again.failed == 0
    assert {request.prompt.split()[0] for request in teacher.requests} == {"crash"}


def test_a_published_split_is_warned_about(here, teacher, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"{text},harmful\n" for text in helpers.safe_prompts(30))
    (data / "80k.csv").write_text(f"prompt,category\n{rows}", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = orbench.evaluate(ScriptedModel(REFUSAL), splits="80k", data=data, out="run", progress=False).run
    with pytest.warns(OrbenchWarning, match=r"held_out_prompts\.csv only"):
        made = make(run, teacher)
    assert made.card.published == ["80k"]


def test_a_file_of_ones_own_is_no_published_split_whatever_its_name(here, teacher, tmp_path):
    file = tmp_path / "hard-1k.csv"
    file.write_text("prompt\n" + "".join(f"{text}\n" for text in helpers.safe_prompts(30)), encoding="utf-8")
    run = orbench.evaluate(ScriptedModel(REFUSAL), splits=f"safe={file}", out="run", limit=20, progress=False).run
    assert make(run, teacher).card.published == []  # warnings are errors here
    file.unlink()  # nothing to look into: the name has to do
    with pytest.warns(OrbenchWarning, match=r"held_out_prompts\.csv only"):
        assert make(run, teacher).card.published == ["hard-1k"]


@pytest.mark.parametrize(
    "options",
    [
        {"held_out": 1.5},
        {"held_out": 0.6, "validation": 0.4},
        {"held_out": 60},
        {"held_out": float("nan")},
        {"held_out": float("inf")},
        {"validation": float("nan")},
        {"containment": 1.0},
        {"stand_in": " "},
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(cautious, teacher, options):
    with pytest.raises(UsageError):
        make(cautious(), teacher, **options)


def test_ids_that_two_splits_share_are_told_apart(here, teacher, tmp_path):
    files = []
    for name, prompts in (("one", helpers.safe_prompts(40)[:20]), ("two", helpers.safe_prompts(40)[20:])):
        path = tmp_path / f"{name}.csv"
        path.write_text("id,prompt\n" + "".join(f"{n},{text}\n" for n, text in enumerate(prompts)), encoding="utf-8")
        files.append(f"safe={path}")
    run = orbench.evaluate(ScriptedModel(REFUSAL), splits=files, out="run", progress=False).run
    made = make(run, teacher, validation=0.0)
    rows = lines(made.folder / "train.jsonl") + lines(made.folder / "held_out.jsonl")
    assert len({row["prompt_id"] for row in rows}) == len(rows) == 40


def test_the_card_says_what_is_there(cautious, teacher):
    made = make(cautious(), teacher)
    card = msgspec.json.decode((made.folder / "card.json").read_bytes())
    assert card["model"] == "scripted/cautious"
    assert card["rows"]["train.jsonl"] == {"safe": len(lines(made.folder / "train.jsonl"))}
    assert card["usage"]["teacher"]["requests"] == len(teacher.requests)
    assert "scripted/teacher" in (made.folder / "card.md").read_text(encoding="utf-8")
