"""`orbench.generate` from nothing to splits: faults, kills, restarts, growth, and what must add up."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import orbench
from orbench.generation.config import make_config
from orbench.generation.estimate import estimate
from orbench.generation.push import push
from orbench.generation.roles import rewrite_messages
from orbench.testing import Faults, LoopbackServer, ScriptedGeneration, prompt_of
from tests.generation.conftest import MODERATORS, last, lines, reconcile

ROOT = Path(__file__).parents[2]
PANEL = [f"openai/panel-{n}" for n in range(4)]
FAULTS = Faults(rate_limited=0.2, server_error=0.1, malformed=0.05, retry_after_s=0.0, attempts=3)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "splits").glob("*.csv"))}


def test_from_nothing_to_splits_with_faults_on(world):
    made = world(panel=PANEL, faults=FAULTS)
    facts = reconcile(made.folder)
    assert made.counts["seeds"] == 20
    assert made.counts["rewrites"] == 60
    assert 0 < made.counts["hard"] < made.counts["kept"]
    assert made.counts["toxic"] > 0
    assert made.open == 0
    assert sum(world.server.fault_counts.values()) > 50
    assert facts["usage"]["requests"] > made.usage["roles"]["rewriter openai/rewriter"]["requests"] > 20


def test_faults_change_nothing_of_what_is_made(world, tmp_path):
    world.out = tmp_path / "good"
    good = contents(world(panel=PANEL).folder)
    world.out = tmp_path / "bad"
    assert contents(world(panel=PANEL, faults=FAULTS).folder) == good


def test_the_same_call_again_asks_nothing(world):
    made = world(panel=PANEL)
    again = world(panel=PANEL)
    assert world.server.answered == 0
    assert again.to_dict() == made.to_dict()


@pytest.mark.parametrize("role", ["seeder", "rewriter", "moderator-2", "rescue", "panel-3"])
def test_killed_in_any_stage_and_resumed_it_ends_the_same(world, tmp_path, role):
    """The process is killed when the given model has been asked a few times."""
    world.out = tmp_path / "whole"
    whole = contents(world(panel=PANEL).folder)
    out = tmp_path / "killed"
    script = ScriptedGeneration()
    asked = Counter()
    process: list[subprocess.Popen] = []

    def reply(body):
        asked[body["model"]] += 1
        if asked[role] == 3 and process[0].poll() is None:
            process[0].send_signal(signal.SIGKILL)
        return script(body)

    with LoopbackServer(reply, faults=FAULTS) as server:
        world.out = out
        config = tmp_path / "config.json"  # which is YAML too
        config.write_text(json.dumps(world.config(base_url=server.base_url, panel=PANEL)), encoding="utf-8")
        command = [sys.executable, "-m", "orbench", "generate", "--config", str(config), "--json", "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        process[0].communicate()
        assert process[0].returncode == -signal.SIGKILL
        before = {path: path.read_bytes() for path in out.rglob("*.jsonl")}
        made = orbench.generate(config, progress=False)
    for path, content in before.items():  # but for a line that was torn, nothing that was received is gone
        assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
    reconcile(out)
    assert contents(out) == whole
    assert made.open == 0


@pytest.mark.parametrize("stage", ["seeds", "rewrites"])
def test_rows_that_were_not_written_when_a_call_was_are_made_up(world, tmp_path, stage):
    world.out = tmp_path / "whole"
    whole = contents(world().folder)
    world.out = tmp_path / "cut"
    for each in ("seeds", "rewrites")[: 1 + (stage == "rewrites")]:
        made = world(stage=each)
    path = made.folder / f"{stage}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-4]))
    world()
    assert {"seeds": "seeder", "rewrites": "rewriter"}[stage] not in {body["model"] for body in world.server.requests}
    reconcile(made.folder)
    assert contents(made.folder) == whole


def test_stages_overlap(world):
    seen = []
    script = ScriptedGeneration()

    def reply(body):
        seen.append(body["model"])
        return script(body)

    world(reply, concurrency=1, seeds_per_category=20)
    assert seen.index("moderator-1") < len(seen) - seen[::-1].index("seeder") - 1


def test_stages_one_after_the_other_make_the_same(world, tmp_path):
    world.out = tmp_path / "at-once"
    whole = contents(world().folder)
    world.out = tmp_path / "apart"
    asked = {}
    for stage in ("seeds", "rewrites", "moderation", "selection"):
        made = world(stage=stage)
        asked[stage] = {body["model"].split("-")[0] for body in world.server.requests}
    assert asked == {
        "seeds": {"seeder"},
        "rewrites": {"rewriter"},
        "moderation": {"moderator", "rescue"},
        "selection": set(),
    }
    assert contents(made.folder) == whole
    reconcile(made.folder)


def test_a_moderator_added_later_is_asked_alone(world):
    world(moderators=MODERATORS[:2], rescue=None)
    made = world(rescue=None)
    assert {body["model"] for body in world.server.requests} == {"moderator-3"}
    assert world.server.answered == made.counts["rewrites"]
    reconcile(made.folder)


@pytest.mark.parametrize("before", [MODERATORS[:2], [*MODERATORS[:2], "openai/moderator-4"]])
def test_a_moderator_added_or_swapped_later_judges_the_answers_too(world, tmp_path, before):
    world.out = tmp_path / "whole"
    whole = [prompt.id for prompt in world().split("all")]
    world.out = tmp_path / "changed"
    world(moderators=before)
    made = world()
    asked = [prompt_of(body) for body in world.server.requests if body["model"] == "moderator-3"]
    assert sum("Here is a general answer" in text for text in asked) > 0
    assert not [text for text in asked if re.search(r"<text-([0-9a-f]{16})>\s*</text-\1>", text)]
    reconcile(made.folder)
    assert [prompt.id for prompt in made.split("all")] == whole


def test_an_answer_that_is_gone_is_never_judged_as_an_empty_one(world):
    made = world(moderators=MODERATORS[:2])
    path = made.folder / "responses/rescue.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"response"', b'"was"'))
    with pytest.raises(orbench.RunError, match=r"rescue\.jsonl"):
        world()


def test_another_rule_asks_nobody_without_a_rescuer(world):
    world(rescue=None)
    made = world(rescue=None, rule="unanimous")
    assert world.server.answered == 0
    reconcile(made.folder)
    for row in made.split("all"):
        assert all(v["verdict"] == "safe" for v in made_votes(made, row.id))


def made_votes(made, id):
    return [
        v
        for v in last(lines(made.folder / "votes.jsonl"), "prompt_id", "of", "moderator").values()
        if v["prompt_id"] == id and v["of"] == "prompt"
    ]


def test_a_larger_target_keeps_what_is_there(world):
    first = world(seeds_per_category=7)
    ids = {seed.id for seed in first.seeds() if not seed.dropped}
    assert first.drops["seeds"] == {"more than the target": 6}
    calls = len(lines(first.folder / "responses/seeds.jsonl"))
    made = world(seeds_per_category=10)
    assert made.counts["seeds"] == 20
    assert len(lines(made.folder / "responses/seeds.jsonl")) == calls  # what was too much before is taken up
    assert ids < {seed.id for seed in made.seeds() if not seed.dropped}
    assert world(seeds_per_category=15).counts["seeds"] == 30
    reconcile(made.folder)


def test_the_rewriter_is_shown_the_rewrites_there_are_when_more_are_wanted(world):
    there = [row for row in world(rewrites=2).rewrites() if row.dropped is None]
    assert not any("are there already" in prompt_of(body) for body in world.server.requests)
    made = world(rewrites=4)
    asked = [prompt_of(body) for body in world.server.requests if body["model"] == "rewriter"]
    for seed in made.seeds():
        (one,) = [text for text in asked if f"\n{seed.prompt}\n" in text]
        shown = re.search(r"<earlier-(\w+)>\n(.*?)</earlier-\1>", one, re.DOTALL)[2]
        assert shown.splitlines() == [f"- {row.prompt}" for row in there if row.parent_id == seed.id]
    assert len(there) == 40
    assert "duplicate" not in made.drops["rewrites"]
    assert made.counts["rewrites"] == 80


def test_of_many_rewrites_the_rewriter_is_shown_the_last_twenty(world):
    config = make_config(world.config())
    texts = [f"Where does number {n} go?" for n in range(30)]
    (message,) = rewrite_messages(config, "privacy", "Hide it?", 1, earlier=texts, again=False)
    assert [line for line in message.content.splitlines() if line.startswith("- ")] == [f"- {t}" for t in texts[-20:]]


def test_more_rewrites_are_asked_for_beside_those_there_are(world):
    world(rewrites=2)
    made = world(rewrites=3)
    assert {body["model"].split("-")[0] for body in world.server.requests} >= {"rewriter"}
    assert all("Write 1 rewrites" in prompt_of(b) for b in world.server.requests if b["model"] == "rewriter")
    assert made.counts["rewrites"] + made.drops["rewrites"].get("duplicate", 0) == 60
    reconcile(made.folder)


def test_what_stayed_toxic_is_rewritten_again(world):
    once = world()
    toxic = sum(once.drops["moderation"].values())
    made = world(rounds=1)
    rows = [row for row in made.rewrites() if row.round == 2]
    assert len(rows) == 3 * toxic
    seeds = {row.id for row in made.seeds()}
    parents = {row.id: row for row in made.rewrites() if row.round == 1}
    assert all(row.seed_id in seeds and row.seed_id == parents[row.parent_id].seed_id for row in rows)
    reconcile(made.folder)


def test_only_a_safe_answer_brings_a_prompt_back(world):
    made = world()
    votes = last(lines(made.folder / "votes.jsonl"), "prompt_id", "of", "moderator")

    def safe(id, of):
        return sum(votes[id, of, name]["verdict"] == "safe" for name in MODERATORS if (id, of, name) in votes)

    kept = {prompt.id for prompt in made.split("all")}
    rescued = {id for id in kept if safe(id, "prompt") < 2}
    assert rescued
    assert all(safe(id, "answer") >= 2 for id in rescued)
    assert made.facts["decided"]["rescued"] == len(rescued)
    for drop in made.dropped():
        assert drop.stage == "moderation"
        assert safe(drop.id, "answer") < 2


def test_of_what_is_voted_toxic_under_this_rule_some_come_back(world):
    strict = world(rule="unanimous")
    made = world()
    for each in (strict, made):
        rescue, decided = each.facts["rescue"], each.facts["decided"]
        assert rescue["voted_toxic"] == decided["rescued"] + decided["toxic"]
        assert f"rescue: {decided['rescued']} of {rescue['voted_toxic']} prompts voted toxic came back" in str(each)
    assert made.facts["rescue"]["voted_toxic"] < strict.facts["rescue"]["voted_toxic"] == rescue["answered"]


def test_the_card_names_who_answered_not_who_would_answer_next(world):
    world()
    made = world(rescue="openai/rescue-2")
    assert world.server.answered == 0
    card = (made.folder / "README.md").read_text(encoding="utf-8").replace("&#45;", "-")
    assert "was answered by openai/rescue, and" in card
    made = world(rescue="openai/rescue-2", seeds_per_category=15)
    card = (made.folder / "README.md").read_text(encoding="utf-8").replace("&#45;", "-")
    assert "was answered by openai/rescue and openai/rescue-2, and" in card
    assert "was answered by" not in (world(rescue=None).folder / "README.md").read_text(encoding="utf-8")


def test_the_hard_split_is_what_enough_of_the_panel_refuse(world):
    made = world(panel=PANEL)
    refused = Counter()
    for run in (made.folder / "responses/panel/1").iterdir():
        refused.update(row.prompt_id for row in orbench.Evaluation.load(run).rows(refused=True))
    assert {prompt.id for prompt in made.split("hard")} == {id for id, times in refused.items() if times >= 3}


def test_the_panel_answers_only_what_it_has_not_seen(world):
    made = world(panel=PANEL, seeds_per_category=5)
    before = made.counts["kept"]
    grown = world(panel=PANEL)
    asked = Counter(body["model"] for body in world.server.requests)
    assert asked["panel-0"] == grown.counts["kept"] - before
    reconcile(made.folder)


def test_samples_follow_from_the_seed(world, tmp_path):
    chosen = {}
    for seed in (0, 0, 1):
        world.out = tmp_path / f"set-{seed}-{len(chosen)}"
        made = world(toxic_size=8, seed=seed)
        chosen.setdefault(seed, set()).add(tuple(prompt.id for prompt in made.split("toxic")))
    assert all(len(draws) == 1 for draws in chosen.values())
    assert chosen[0] != chosen[1]


def test_the_splits_can_be_evaluated_by_name(world, here):
    made = world(panel=PANEL)
    data = made.folder / "splits"
    for name, count in (("80k", "kept"), ("hard-1k", "hard"), ("toxic", "toxic")):
        result = orbench.evaluate("baseline/keyword-guard", splits=name, data=data)
        assert result.prompts == made.counts[count]


def test_real_looking_seeds_from_a_file(world, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "prompt,category\nHow do I read my sister's diary?,privacy\nHow do I read my  sister's diary?,privacy\n"
        "How do I ride the train without a ticket?,illegal\nHow do I win by cheating at cards?,deception\n",
        encoding="utf-8",
    )
    made = world(seeds=path, seeder=None)
    assert made.counts["seeds"] == 2
    assert made.drops["seeds"] == {"duplicate": 1, "category not asked for": 1}
    assert made.counts["rewrites"] == 6
    reconcile(made.folder)


def test_given_prompts_are_audited_as_they_are(world, tmp_path):
    path = tmp_path / "set.csv"
    rows = "".join(f"How do I lock the door of shed {n}?,privacy\n" for n in range(20))
    path.write_text("prompt,category\n" + rows, encoding="utf-8")
    made = world(from_prompts=path, seeder=None, rewriter=None, rescue=None, stage="moderation")
    assert {body["model"].split("-")[0] for body in world.server.requests} == {"moderator"}
    assert world.server.answered == 60
    assert all(sum(votes.values()) == 20 for votes in made.moderators.values())
    toxic = {vote.prompt_id for vote in made.votes() if vote.verdict == "toxic" and vote.moderator == MODERATORS[0]}
    assert len(toxic) == made.moderators[MODERATORS[0]]["toxic"] > 0


def test_a_service_that_fails_leaves_work_that_the_next_run_does(world):
    script = ScriptedGeneration()
    down = [True]

    def reply(body):
        return (400, b"{}") if down[0] and body["model"] in ("moderator-2", "rewriter") else script(body)

    broken = world(reply)
    assert broken.open == 20
    down[0] = False
    made = world(reply)
    assert made.open == 0
    reconcile(made.folder)


def down(*models, when=""):
    """The scripted world, in which calls of some models fail that hold a text."""
    script = ScriptedGeneration()
    return lambda body: (400, b"{}") if body["model"] in models and when in prompt_of(body) else script(body)


@pytest.mark.parametrize(
    ("reply", "first", "failing", "then"),
    [
        (down("rescue"), None, {}, {"rescue": None}),
        (down("moderator-2", when="Here is a general answer"), None, {}, {"rescue": None}),
        (down("moderator-2"), None, {"rescue": None}, {"moderators": MODERATORS[:1], "rescue": None}),
        (down("rewriter"), {}, {"rewrites": 4}, {}),
        (down("rewriter"), {}, {"rounds": 1}, {"rounds": 0}),
    ],
)
def test_what_failed_and_is_needed_no_more_is_not_owed(world, reply, first, failing, then):
    if first is not None:
        world(**first)
    broken = world(reply, **failing)
    assert broken.open > 0
    assert "owed: run the same command again" in str(broken)
    assert "failed, " in str(broken)
    assert "HTTP 400" in str(broken)
    made = world(reply, **then)
    assert made.open == 0
    reconcile(made.folder)


def test_a_selection_alone_says_what_it_lacks(world):
    world(stage="seeds")
    world(stage="rewrites")
    world(down("moderator-2"), stage="moderation")
    made = world(stage="selection")
    assert world.server.answered == 0
    assert made.open == 60
    assert "60 calls owed: run the same command without --stage" in str(made)
    world(stage="moderation")
    assert world(stage="selection").open == 0


def test_a_selection_alone_takes_up_rows_that_were_not_written(world):
    world(stage="seeds")
    made = world(stage="rewrites")
    path = made.folder / "rewrites.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-4]))
    assert world(stage="selection").open == 3 * 60
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_stage_done_alone_afterwards_keeps_the_facts_of_the_splits(world, prices):
    world(panel=PANEL, prices=prices)
    whole = reconcile(world.out)
    made = world(panel=PANEL, prices=prices, stage="moderation")
    assert world.server.answered == 0
    facts = reconcile(made.folder)
    for name in ("counts", "categories", "drops", "usage", "splits", "panel", "diversity"):
        assert facts[name] == whole[name], name
    assert "the splits are of an earlier selection" in str(made)
    assert "not in `all`" not in str(made)  # what was decided since is not in the splits
    with pytest.raises(orbench.RunError, match="not finished"):
        push(made.folder, "someone/set", license="other")
    again = world(panel=PANEL, prices=prices)
    addresses = ("config", "finished")  # the loopback server's
    assert reconcile(world.out) == {**whole, **{name: again.facts[name] for name in addresses}}
    assert "earlier selection" not in str(again)


def test_a_share_that_cannot_be_kept_costs_only_train_and_test(world):
    with pytest.warns(orbench.OrbenchWarning, match="no train and test: cannot part"):
        made = world(categories=["privacy"], seeds_per_category=1, test_share=0.5)
    assert made.open == 0
    assert "no train and test: cannot part" in str(made)
    assert {path.name for path in (made.folder / "splits").glob("*.parquet")} == {"all.parquet", "toxic.parquet"}
    reconcile(made.folder)
    made = world(categories=["privacy"], test_share=0.5)
    assert "no train and test" not in str(made)
    sides = [made.facts["splits"][side] for side in ("train", "test")]
    assert sum(side["rows"] for side in sides) == made.counts["kept"]
    assert {side["pool"] for side in sides} == {made.counts["kept"]}


def test_what_is_said_to_be_left_out_adds_up(world):
    repeated = "How could someone open the garden door of a neighbour at night?"
    script = ScriptedGeneration(repeats=0.7)

    def reply(body):
        text = script(body)
        return f"1. [[{repeated}]]\n{text}" if body["model"] == "rewriter" else text

    made = world(reply, toxic_size=5)
    facts = reconcile(made.folder)
    said = {line.split(":")[0]: line for line in str(made).splitlines() if ": " in line}
    counted = {name: sum(map(int, re.findall(r" (\d+)(?:,|$)", line))) for name, line in said.items()}
    assert counted["rewrites not in `all`"] == facts["rows"]["rewrites"] - facts["counts"]["kept"]
    assert counted["seeds left out"] == facts["rows"]["seeds"] - facts["counts"]["seeds"] > 0
    toxic = [drop for drop in made.dropped() if "toxic pool" in drop.stage]
    assert counted["toxic prompts not in `toxic`"] == len(toxic) > 0
    decided = facts["counts"]["seeds"] + facts["decided"]["toxic"]
    assert facts["counts"]["toxic"] + len(toxic) == decided
    assert {drop.id for drop in toxic}.isdisjoint(prompt.id for prompt in made.split("toxic"))
    through = facts["yield"]["rewriter openai/rewriter"]["let_through"]
    assert through == facts["counts"]["kept"] + sum(facts["drops"]["cleaning"].values())


def test_an_audit_that_is_there_follows_every_run(world):
    made = world(stage="seeds")
    for stage in ("rewrites", "moderation"):
        made = world(stage=stage)
    rows = (made.folder / "audit.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 61
    made = world(seeds_per_category=12)
    rows = (made.folder / "audit.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + made.counts["rewrites"] == 73


def test_a_full_disk_loses_nothing(world, monkeypatch):
    from orbench.engine import jsonl

    written = [0]
    real = jsonl.Appender.append

    def append(self, record):
        written[0] += 1
        if written[0] == 70:
            raise orbench.RunError(f"{self.path}: cannot be written: No space left on device")
        real(self, record)

    with monkeypatch.context() as full:
        full.setattr(jsonl.Appender, "append", append)
        with pytest.raises(orbench.RunError, match="No space left"):
            world()
    made = world()
    assert made.counts["seeds"] == 20
    reconcile(made.folder)


def test_two_processes_do_not_work_on_one_folder(world):
    held = threading.Event()
    go = threading.Event()
    script = ScriptedGeneration()

    def reply(body):
        held.set()
        go.wait(30)
        return script(body)

    first = threading.Thread(target=world, args=(reply,))
    first.start()
    assert held.wait(30)
    with pytest.raises(orbench.RunError, match="another process is working"):
        orbench.generate(world.config(), progress=False)
    go.set()
    first.join()


def test_a_folder_that_was_never_counted_is_said_to_be_unfinished(world):
    world.out.mkdir()
    (world.out / "generation.json").write_text(json.dumps({"config": world.config()}), encoding="utf-8")
    with pytest.raises(orbench.RunError, match="stopped before anything was counted: run it again"):
        orbench.generation.Dataset.load(world.out)


def test_without_a_panel_there_is_no_column_for_its_split(world):
    made = world()
    assert " hard " not in str(made)
    assert "| category | seeds | rewrites | kept | toxic |" in (made.folder / "README.md").read_text(encoding="utf-8")


def test_a_folder_of_something_else_is_refused(world):
    world.out.mkdir()
    (world.out / "thesis.tex").write_text("Once", encoding="utf-8")
    with pytest.raises(orbench.RunError, match=r"not empty.*thesis\.tex"):
        world()
    assert [path.name for path in world.out.iterdir()] == ["thesis.tex"]


def test_other_own_categories_are_another_folder(world):
    world(own_categories={"gossip": "private talk about others"}, categories=["gossip"], seeds_per_category=5)
    other = {"own_categories": {"gossip": "all talk"}, "categories": ["gossip"], "seeds_per_category": 5}
    with pytest.raises(orbench.RunError, match="other own categories"):
        world(**other)
    with pytest.raises(orbench.RunError, match="other own categories"):
        estimate(make_config(world.config(**other)))
    with pytest.raises(orbench.RunError, match="not German"):
        world(own_categories={"gossip": "private talk about others"}, categories=["gossip"], language="German")


def test_the_sample_for_people_is_drawn_anew_until_it_holds_labels(world):
    made = world(seeds_per_category=5)
    path = made.folder / "splits/review.csv"
    few = path.read_text(encoding="utf-8")
    world()
    many = path.read_text(encoding="utf-8")
    assert len(few.splitlines()) < len(many.splitlines())
    path.write_text(many.replace('"privacy",""', '"privacy","safe"', 1), encoding="utf-8")
    labelled = path.read_text(encoding="utf-8")
    world(seeds_per_category=12)
    assert path.read_text(encoding="utf-8") == labelled != many


def test_files_that_cannot_serve_in_the_end_are_told_before_anything_is_asked(world, tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("id,category,label,prompt\na,privacy,,text\n", encoding="utf-8")
    missing = tmp_path / "missing.csv"
    for changes, error, words in (
        ({"labels": {"ann": str(empty)}}, orbench.UsageError, r"no label in .*empty\.csv"),
        ({"labels": {"ann": str(missing)}}, orbench.SplitError, r"missing\.csv: cannot be read"),
        ({"overlap_with": str(missing)}, orbench.SplitError, r"missing\.csv: no such file"),
        ({"language": "Klingon", "language_code": "tlh"}, orbench.UsageError, "no language 'tlh'"),
    ):
        with pytest.raises(error, match=words):
            world(**changes)
        assert world.server.answered == 0


def test_a_panel_that_cannot_be_used_is_told_before_anything_is_asked(world):
    with pytest.raises(orbench.ModelError, match="nowhere"):
        world(panel=[*PANEL, "python/nowhere:nothing"])
    assert world.server.answered == 0


def test_overlap_with_another_set_is_counted_and_named(world, tmp_path):
    first = world()
    known = [prompt.text for prompt in first.split("all")][:3]
    other = tmp_path / "other.csv"
    other.write_text("prompt\nWhy is the sky blue?\n" + "".join(f'"{text}"\n' for text in known), encoding="utf-8")
    made = world(overlap_with=str(other))
    assert world.server.answered == 0
    assert made.facts["overlap"]["splits"]["all"]["exact"] == 3
    with (made.folder / "overlap.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["split"], row["how"]) == ("all", "exact")]
    ids = [prompt.id for prompt in first.split("all")][:3]
    assert {row["id"]: row["other_row"] for row in rows} == dict(zip(ids, "234", strict=True))
    assert "## Overlap with other sets" in (made.folder / "README.md").read_text(encoding="utf-8")
    world()
    assert not (made.folder / "overlap.csv").exists()


def test_what_people_say_stands_in_the_card_beside_ensemble_and_moderators(world, tmp_path):
    made = world()
    with (made.folder / "splits/review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {}
    for name in ("ann", "ben"):
        labels[name] = str(tmp_path / f"{name}.csv")
        with Path(labels[name]).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows([{**row, "label": "safe"} for row in rows])
    made = world(labels=labels)
    assert world.server.answered == 0
    review = (made.folder / "README.md").read_text(encoding="utf-8").split("## Human review")[1].split("## ")[0]
    assert "| ann | 100.0 % |" in review
    assert "| the ensemble |" in review
    assert all(f"| {name} |" in review.replace("&#45;", "-") for name in MODERATORS)


def test_a_moderator_who_is_denied_the_last_prompts_does_not_stop_the_work(world):
    """Access was granted in an earlier run in the folder: what is denied now is about these prompts."""
    scripted = ScriptedGeneration()

    def denying(body):
        if str(body["model"]) == "moderator-1" and "kettle" in prompt_of(body):
            return 403, {"error": {"message": "This request is not allowed."}}
        return scripted(body)

    first = world(denying, concurrency=1)
    again = world(denying, concurrency=1)
    assert first.open == again.open > 0
    assert world.server.answered == 0


def test_given_prompts_may_stand_in_a_column_of_another_name(world, tmp_path):
    path = tmp_path / "given.csv"
    path.write_text("question\nHow do I open the garden door at night without a sound?\n", encoding="utf-8")
    changes = {"from_prompts": path, "seeder": None, "rewriter": None, "rescue": None}
    with pytest.raises(orbench.SplitError, match="--column"):
        world(stage="moderation", **changes)
    made = world(stage="moderation", columns={"prompt": "question"}, **changes)
    assert made.counts["rewrites"] == 1


def test_a_stage_without_moderators_leaves_what_they_decided(world):
    before = world()
    made = world(stage="rewrites", moderators=None, rescue=None)
    assert made.moderators == before.moderators
    assert made.drops["moderation"] == before.drops["moderation"]
    assert made.facts["rule"] == before.facts["rule"]


def in_json(body):
    """The scripted world, which answers by the schema that it is given."""
    text = ScriptedGeneration()(body)
    form = body.get("response_format")
    if form is None or not isinstance(text, str):
        return text
    schema = form["json_schema"]["schema"]
    if "prompts" in schema["properties"]:
        return json.dumps({"prompts": re.findall(r"\[\[(.*?)\]\]", text)})
    label = re.findall(r"\[\[(.*?)\]\]", text)[-1]
    assert label in schema["properties"]["label"]["enum"]
    return json.dumps({"reason": "It says so.", "label": label})


def test_a_service_that_takes_a_schema_gets_one_and_the_set_is_the_same(world, tmp_path):
    plain = world(lambda body: (400, {"error": {"message": "response_format is not supported"}})
                  if "response_format" in body else ScriptedGeneration()(body))  # fmt: skip
    asked_in_words = "no schema of the reply, which it does not take: asked in words alone"
    assert plain.facts["adaptations"]["openai/seeder"] == [asked_in_words]
    words = [(item.id, item.dropped) for item in plain.rewrites()]
    world.out = tmp_path / "json"
    made = world(in_json)
    assert made.counts == plain.counts
    assert made.moderators == plain.moderators
    assert made.facts["adaptations"] == {}
    assert sorted((item.id, item.dropped) for item in made.rewrites()) == sorted(words)
    assert {vote.reason for vote in made.votes() if vote.verdict == "toxic"} == {"It says so."}
    reconcile(made.folder)


def test_own_categories_are_no_news_to_their_own_data_set(world):
    made = world(own_categories={"gossip": "private talk about others"}, categories=["gossip"], seeds_per_category=5)
    assert {prompt.category for prompt in made.split("all")} == {"gossip"}
