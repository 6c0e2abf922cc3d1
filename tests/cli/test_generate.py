"""`orbench generate` as a command."""

import json

import pytest

import orbench
from orbench.testing import LoopbackServer, ScriptedGeneration
from tests.generation.conftest import reconcile

MODELS = ["--seeder", "openai/seeder", "--rewriter", "openai/rewriter", "--rescue", "openai/rescue"]
MODERATORS = [word for n in (1, 2, 3) for word in ("--moderator", f"openai/moderator-{n}")]
SMALL = ["--category", "privacy", "--seeds-per-category", "5", "--rewrites", "2", "--quiet"]


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")
    with LoopbackServer(ScriptedGeneration()) as server:
        yield server


def test_json_has_what_is_promised(cli, here, service):
    done = cli("generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--json", "--base-url", service.base_url)
    assert done.code == 0
    found = json.loads(done.out)
    assert set(found["counts"]) == {"seeds", "rewrites", "kept", "hard", "toxic"}
    assert found["counts"]["seeds"] == 5
    assert found["categories"] == {"privacy": found["counts"]}
    assert set(found["moderators"]["openai/moderator-1"]) == {"toxic", "safe", "abstained"}
    assert found["usage"]["requests"] == service.answered
    assert found["open"] == 0
    reconcile(here / "set")


def test_the_table_names_categories_moderators_and_drops(cli, here, service):
    words = [word for word in SMALL if word != "--quiet"]
    done = cli("generate", "--out", "set", *MODELS, *MODERATORS, *words, "--base-url", service.base_url)
    assert "privacy" in done.out
    assert "openai/moderator-3" in done.out
    assert "rewrites not in `all`: " in done.out


def test_failed_calls_end_with_3(cli, here, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")
    script = ScriptedGeneration()
    with LoopbackServer(lambda b: (400, b"{}") if b["model"] == "moderator-1" else script(b)) as server:
        done = cli("generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--json", "--base-url", server.base_url)
    assert done.code == 3
    assert json.loads(done.out)["open"] == 10


@pytest.mark.filterwarnings("always::orbench.OrbenchWarning")
def test_an_empty_set_ends_with_1_each_time(cli, here, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")
    script = ScriptedGeneration()
    with LoopbackServer(lambda b: "I cannot help." if b["model"] == "rewriter" else script(b)) as server:
        for _ in range(2):
            done = cli(
                "generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--json", "--base-url", server.base_url
            )
            assert done.code == 1
            assert json.loads(done.out)["counts"]["kept"] == 0
            assert "set: no prompt was kept" in done.err


def test_an_audit_that_finds_all_of_it_toxic_ends_with_0(cli, here, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")
    (here / "set.csv").write_text("prompt\nHow do I paint the door of my shed at night?\n")
    with LoopbackServer("[[4. violence]]") as server:
        done = cli("generate", "--out", "audit", "--from-prompts", "set.csv", "--stage", "moderation", *MODERATORS,
                   "--base-url", server.base_url)  # fmt: skip
    assert done.code == 0
    assert done.out.splitlines()[2:4] == ["category       prompts  safe", "uncategorised        1     0"]
    assert "decided: toxic 1; audit/audit.csv has every prompt with every vote" in done.out


def test_wrong_usage_is_one_line_and_2(cli, here):
    done = cli("generate", "--out", "set", "--rule", "paper", *MODERATORS)
    assert done.code == 2
    assert "add --rescue MODEL" in done.err
    assert not (here / "set").exists()


def test_an_own_category_on_the_command_line(cli, here, service):
    own = ["--category", "gossip=private talk about others", "--seeds-per-category", "5", "--rewrites", "2", "--quiet"]
    done = cli("generate", "--out", "set", *MODELS, *MODERATORS, *own, "--json", "--base-url", service.base_url)
    assert list(json.loads(done.out)["categories"]) == ["gossip"]
    asked = [body["messages"][-1]["content"] for body in service.requests if body["model"] == "moderator-1"]
    assert all("[[11. gossip]]" in text and "[[12. None of the above]]" in text for text in asked)


def test_an_own_category_defined_twice_is_refused(cli, here):
    words = ["generate", "--out", "set", "--category", "gossip=old", "--category", "gossip=new", *MODELS, *MODERATORS]
    done = cli(*words)
    assert done.code == 2
    assert "gossip was defined before as 'old'" in done.err


def test_options_go_before_the_file(cli, here, service):
    (here / "c.yaml").write_text("seeds_per_category: 50\nseeder: openai/seeder\ncategories: [privacy]\n")
    done = cli("generate", "--config", "c.yaml", "--out", "set", "--seeds-per-category", "5", "--stage", "seeds",
               "--json", "--base-url", service.base_url)  # fmt: skip
    assert json.loads(done.out)["counts"]["seeds"] == 5


def test_a_dry_run_asks_nothing(cli, here, service):
    done = cli("generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--dry-run", "--json",
               "--base-url", service.base_url)  # fmt: skip
    found = json.loads(done.out)
    calls = {(stage["stage"], stage["model"]): stage["calls"] for stage in found["stages"]}
    assert calls["rewrites", "openai/rewriter"] == {"low": 5, "high": 5}
    assert calls["moderation", "openai/moderator-2"] == {"low": 10, "high": 10}
    assert calls["rescue", "openai/rescue"] == {"low": 2, "high": 10}
    assert found["cost_usd"] is None  # no price is known at this address
    assert service.answered == 0
    assert not (here / "set").exists()


def test_a_dry_run_has_the_cost_of_each_stage_and_needs_no_key(cli, here, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (here / "prices.csv").write_text("model,input,output\nopenai/*,1,2\n")
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--dry-run"]
    found = json.loads(cli(*words, "--prices", "prices.csv", "--json").out)
    costs = [stage["cost_usd"] for stage in found["stages"]]
    assert all(0 < cost["low"] < cost["high"] for cost in costs)
    assert found["cost_usd"]["high"] == pytest.approx(sum(cost["high"] for cost in costs))
    halves = json.loads(cli(*words, "--prices", "prices.csv", "--json", "--base-url", "http://127.0.0.1:9").out)
    assert halves["cost_usd"] == found["cost_usd"]
    assert "No price is known for openai/moderator-1" in cli(*words, "--base-url", "http://127.0.0.1:9").out


def test_what_a_dry_run_says_is_what_is_asked(cli, here, service):
    panel = [word for n in (1, 2, 3) for word in ("--panel", f"openai/panel-{n}")]
    (here / "prices.csv").write_text("model,input,output\nopenai/*,1,2\n")
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, *panel, "--base-url", service.base_url,
             "--prices", "prices.csv", "--json"]  # fmt: skip
    said = json.loads(cli(*words, "--dry-run").out)
    made = json.loads(cli(*words).out)
    assert said["calls"]["low"] <= made["usage"]["requests"] == service.answered <= said["calls"]["high"]
    assert 0 < made["usage"]["cost_usd"] < said["cost_usd"]["high"]
    assert json.loads(cli(*words, "--dry-run").out)["calls"] == {"low": 0, "high": 0}


@pytest.mark.parametrize("number", [0, -1])
def test_calls_open_at_once_are_at_least_one(cli, here, number):
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--base-url", "http://127.0.0.1:9/v1"]
    for more in ([], ["--dry-run"]):
        done = cli(*words, *more, "--concurrency", number)
        assert (done.code, done.out) == (2, "")
        assert f"concurrency is {number}: at least 1" in done.err


@pytest.mark.filterwarnings("default")
def test_a_dry_run_says_where_the_bound_may_not_be_enough_for_it(cli, here, service):
    (here / "prices.csv").write_text("model,input,output\nopenai/*,1,2\n")
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--base-url", service.base_url,
             "--prices", "prices.csv"]  # fmt: skip
    low, high = json.loads(cli(*words, "--dry-run", "--json").out)["cost_usd"].values()
    for bound, said in ((low / 2, "is not enough: the low end is $"), ((low + high) / 2, "is within the estimate: $")):
        assert said in cli(*words, "--dry-run", "--max-cost", bound).err
    assert cli(*words, "--dry-run", "--max-cost", high * 1.01).err == ""
    spent = json.loads(cli(*words, "--stage", "seeds", "--json").out)["usage"]["cost_usd"]
    rest = json.loads(cli(*words, "--dry-run", "--json").out)["cost_usd"]
    assert "spent before" in cli(*words, "--dry-run", "--max-cost", rest["low"] + spent / 2).err


def test_a_dry_run_of_a_finished_folder_has_nothing_to_ask(cli, here, service):
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--base-url", service.base_url]
    cli(*words)
    found = json.loads(cli(*words, "--dry-run", "--json").out)
    assert found["calls"] == {"low": 0, "high": 0}


@pytest.mark.parametrize("more", [("--rounds", "1"), ("--seeds-per-category", "8")])
def test_what_a_dry_run_says_of_more_in_a_finished_folder_is_what_is_asked(cli, here, service, more):
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *SMALL, "--base-url", service.base_url]
    cli(*words)
    before = service.answered
    said = json.loads(cli(*words, *more, "--dry-run", "--json").out)
    cli(*words, *more)
    assert said["calls"]["low"] <= service.answered - before <= said["calls"]["high"]
    rewrites = [stage["calls"] for stage in said["stages"] if stage["stage"].startswith("rewrites")]
    asked = sum(body["model"] == "rewriter" for body in service.requests[before:])
    assert sum(calls["low"] for calls in rewrites) == asked == sum(calls["high"] for calls in rewrites)


def test_a_dry_run_counts_lists_of_seeds_by_category(cli, here, service):
    names = [word for name in ("privacy", "illegal", "deception") for word in ("--category", name)]
    words = ["generate", "--out", "set", *MODELS, *MODERATORS, *names, "--seeds-per-category", "3", "--base-url",
             service.base_url, "--stage", "seeds", "--json"]  # fmt: skip
    said = json.loads(cli(*words, "--dry-run").out)
    assert said["calls"] == {"low": 3, "high": 3}
    cli(*words)
    assert service.answered == 3


def test_init_writes_a_configuration_that_loads(cli, here):
    assert cli("generate", "--init", "config.yaml").code == 0
    assert "no seeds" in cli("generate", "--config", "config.yaml", "--out", "set").err
    assert cli("generate", "--init", "config.yaml").code == 2


def test_an_audit_says_who_thinks_what_toxic(cli, here, service):
    rows = "".join(f"How do I paint the door of shed number {n} at night?\n" for n in range(20))
    (here / "set.csv").write_text("prompt\n" + rows)
    done = cli("generate", "--out", "audit", "--from-prompts", "set.csv", "--stage", "moderation", *MODERATORS,
               "--json", "--quiet", "--base-url", service.base_url)  # fmt: skip
    found = json.loads(done.out)
    audit = (here / "audit/audit.csv").read_text().splitlines()
    columns = "id,row,own_id,prompt,category,decision,toxic_votes"
    assert audit[0] == f"{columns},openai/moderator-1,openai/moderator-2,openai/moderator-3"
    assert len(audit) == 21
    toxic = sum(line.split(",")[7] == "toxic" for line in audit[1:])
    assert toxic == found["moderators"]["openai/moderator-1"]["toxic"]


@pytest.mark.filterwarnings("always::orbench.OrbenchWarning")
def test_evaluate_warns_of_the_panel(cli, here, service):
    panel = [word for n in (1, 2, 3) for word in ("--panel", f"openai/panel-{n}")]
    words = [*MODELS, *MODERATORS, *SMALL, "--hard-min", "2", "--base-url", service.base_url]
    cli("generate", "--out", "set", *panel, *words)
    chosen = cli(
        "evaluate", "openai/panel-1", "--data", "set/splits", "--split", "hard-1k", "--base-url", service.base_url
    )
    assert "panel-1 is one of the 3 models whose refusals chose the prompts of hard-1k" in chosen.err
    other = cli(
        "evaluate", "openai/other", "--data", "set/splits", "--split", "hard-1k", "--base-url", service.base_url
    )
    assert "refusals chose" not in other.err
    assert orbench.load_split("hard-1k", data="set/splits")
