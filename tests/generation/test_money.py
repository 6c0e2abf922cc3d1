"""What a generation may cost, and the batch APIs that cost half."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import orbench
from orbench.testing import LoopbackServer, ScriptedGeneration, chat_completion
from tests.generation.conftest import reconcile

ROOT = Path(__file__).parents[2]
PANEL = [f"openai/panel-{n}" for n in range(4)]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "splits").glob("*.csv"))}


def test_the_cost_of_every_role_is_counted(world, prices):
    usage = world(panel=PANEL, prices=prices).usage
    assert all(role["cost_usd"] > 0 for role in usage["roles"].values())
    assert usage["cost_usd"] == pytest.approx(sum(role["cost_usd"] for role in usage["roles"].values()))
    assert usage["requests"] == world.server.answered
    assert "| 0.0" not in (world.out / "README.md").read_text(encoding="utf-8").split("## Cost")[1].split("##")[0]


def test_without_a_price_the_cost_is_unknown_and_not_nothing(world):
    usage = world().usage
    assert usage["cost_usd"] is None
    assert {role["cost_usd"] for role in usage["roles"].values()} == {None}


def test_a_bound_without_a_price_is_refused_before_anything_is_asked(world, prices):
    prices.write_text("model,input,output\nopenai/seeder,1,2\n", encoding="utf-8")
    with pytest.raises(orbench.UsageError, match="no price is known for openai/rewriter"):
        world(max_cost=1, prices=prices)
    known = ("seeder", "rewriter", "rescue", "moderator-1", "moderator-2", "moderator-3")
    prices.write_text("model,input,output\n" + "".join(f"openai/{name},1,2\n" for name in known), encoding="utf-8")
    with pytest.raises(orbench.UsageError, match="no price is known for openai/panel-0"):
        world(max_cost=1, prices=prices, panel=PANEL)
    assert world.server.answered == 0


@pytest.mark.filterwarnings("ignore:stopped at --max-cost:orbench.OrbenchWarning")
def test_the_bound_is_kept_and_a_higher_one_goes_on(world, prices, tmp_path):
    world.out = tmp_path / "whole"
    free = world(panel=PANEL, prices=prices)
    cost = free.usage["cost_usd"]
    world.out = tmp_path / "bounded"
    requests = spent = 0
    for share in (0.2, 0.5, 0.8, 0.95):
        made = world(panel=PANEL, prices=prices, max_cost=share * cost)
        roles = made.usage["roles"].values()
        assert spent <= sum(role["cost_usd"] or 0 for role in roles) <= share * cost
        spent = sum(role["cost_usd"] or 0 for role in roles)
        requests += world.server.answered
        assert made.open > 0
        assert "not made for want of money" in str(made) or made.counts["hard"] < free.counts["hard"]
    made = world(panel=PANEL, prices=prices, max_cost=20)
    assert made.open == 0
    assert contents(made.folder) == contents(free.folder)
    assert requests + world.server.answered == free.usage["requests"]  # nothing is paid for twice
    reconcile(made.folder)


@pytest.mark.filterwarnings("ignore:stopped at --max-cost:orbench.OrbenchWarning")
@pytest.mark.parametrize("said", [(), ("prompt_tokens",)])
def test_the_bound_holds_over_runs_where_no_usage_is_said(world, prices, said):
    script = ScriptedGeneration()

    def silent(body):
        reply = chat_completion(script(body))
        usage = {name: number for name, number in reply.pop("usage").items() if name in said}
        return reply | ({"usage": usage} if usage else {})

    made = world(silent, prices=prices, max_cost=0.02)
    assert made.usage["cost_usd"] is None
    assert made.open > 0
    calls = world.server.answered
    for _ in range(3):  # all of it is spent: the same bound pays for hardly a call more
        world(silent, prices=prices, max_cost=0.02)
        calls += world.server.answered
    assert calls <= 1.2 * made.usage["requests"]


def silencing(*models, text=None):
    """Replies, of which those of the given models do not say their tokens."""
    script = ScriptedGeneration()

    def reply(body):
        said = chat_completion(text if text and body["model"] in models else script(body))
        if body["model"] in models:
            del said["usage"]
        return said

    return reply


@pytest.mark.parametrize("silent", ["panel-1", "moderator-2", "rewriter"])
def test_a_role_that_does_not_say_its_tokens_has_an_unknown_cost(world, prices, silent):
    made = world(silencing(silent), panel=PANEL, prices=prices)
    (name,) = [name for name in made.usage["roles"] if name.endswith(f"/{silent}")]
    role = made.usage["roles"][name]
    assert (role["input_tokens"], role["output_tokens"], role["cost_usd"]) == (None, None, None)
    assert role["uncounted"] == role["requests"] > 0
    others = [spent for other, spent in made.usage["roles"].items() if other != name]
    assert made.usage["cost_usd"] is None
    assert made.usage["at_least_usd"] == pytest.approx(sum(spent["cost_usd"] for spent in others))
    assert made.usage["input_tokens"] == sum(spent["input_tokens"] for spent in others)
    assert f"; {role['uncounted']:,} replies do not say their tokens)" in str(made)
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert "| unknown | unknown | unknown |" in card.split("## Cost")[1]
    assert world(silencing(silent), panel=PANEL, prices=prices).usage == made.usage  # and so it stays
    alone = world(silencing(silent), panel=PANEL, prices=prices, stage="moderation").usage
    assert alone["cost_usd"] is None


@pytest.mark.filterwarnings("ignore:.*has no vote that can be read:orbench.OrbenchWarning")
def test_votes_that_cannot_be_read_were_paid_for(world, prices):
    usage = world(silencing("moderator-1", text="Hm."), prices=prices).usage
    role = usage["roles"]["moderator openai/moderator-1"]
    assert role["cost_usd"] is None
    assert role["uncounted"] == role["requests"] > 0


@pytest.mark.filterwarnings("ignore:stopped at --max-cost:orbench.OrbenchWarning")
def test_what_a_silent_panel_has_cost_counts_for_the_bound_of_all_roles(world, prices):
    made = world(silencing(*(f"panel-{n}" for n in range(4))), panel=PANEL, prices=prices)
    known = made.usage["at_least_usd"]
    assert world.server.answered
    more = {"panel": PANEL, "prices": prices, "seeds_per_category": 40}
    with pytest.warns(orbench.OrbenchWarning, match=r"spent \(\$0\.02\d of it estimated: replies that do not say"):
        world(silencing("panel-0"), max_cost=known + 0.02, **more)
    assert world.server.answered == 0  # the panel's tokens are estimated: they are more than what seems to be left
    world(silencing("panel-0"), max_cost=known + 0.08, **more)
    assert world.server.answered > 0


@pytest.mark.filterwarnings("ignore:stopped at --max-cost:orbench.OrbenchWarning")
def test_it_is_said_that_a_role_without_a_price_is_not_counted(world, prices):
    world()
    known = prices.read_text()
    prices.write_text("model,input,output\nopenai/seeder,1,2\nopenai/panel-*,1,2\n", encoding="utf-8")
    with pytest.warns(orbench.OrbenchWarning, match=r"no price is known for .*openai/rewriter.* is not counted"):
        world(stage="seeds", prices=prices, max_cost=1, seeds_per_category=15)
    prices.write_text(known, encoding="utf-8")


def test_it_is_said_that_the_money_is_spent_and_what_the_rest_takes(world, prices):
    words = r"stopped at --max-cost 0.005: .* calls not made; the rest takes \$0\.0\d+-\$1\.\d+ \(see --dry-run\)"
    with pytest.warns(orbench.OrbenchWarning, match=words):
        made = world(prices=prices, max_cost=0.005)
    assert made.open > 0


@pytest.mark.filterwarnings("ignore:stopped at --max-cost:orbench.OrbenchWarning")
@pytest.mark.parametrize("role", [{}, {"concurrency": 4}])
def test_money_that_runs_out_has_finished_what_it_began(world, prices, tmp_path, role):
    """A quarter of the money makes about a quarter of the set, not all of the rewrites and no votes."""
    world.out = tmp_path / "whole"
    whole = world(prices=prices, seeds_per_category=60, **role)
    world.out = tmp_path / "quarter"
    made = world(prices=prices, seeds_per_category=60, max_cost=whole.usage["cost_usd"] / 4, **role)
    assert 0.15 * whole.counts["kept"] < made.counts["kept"] < 0.3 * whole.counts["kept"]
    assert made.facts["decided"].get("owed", 0) < 0.3 * made.counts["rewrites"]


def test_batches_make_the_same_at_half_the_price(world, prices, tmp_path):
    world.out = tmp_path / "single"
    single = world(panel=PANEL, prices=prices)
    world.out = tmp_path / "batched"
    batched = world(panel=PANEL, prices=prices, batch=True)
    assert contents(batched.folder) == contents(single.folder)
    assert batched.usage["requests"] == single.usage["requests"]
    # the first call of each role is a single one, at its full price
    assert single.usage["cost_usd"] / 2 < batched.usage["cost_usd"] < single.usage["cost_usd"] * 0.55
    reconcile(batched.folder)
    world(panel=PANEL, prices=prices, batch=True)
    assert world.server.answered == 0


def test_roles_without_a_batch_api_are_asked_directly(world):
    made = world(batch=True, rescue="ollama/rescue")
    models = {path.name.rpartition("-")[0] for path in (made.folder / "responses/batches").iterdir()}
    assert "ollama--rescue" not in models
    assert "openai--moderator-1" in models
    assert made.open == 0
    reconcile(made.folder)


def test_batches_need_somebody_who_has_them(world):
    roles = {"seeder": "ollama/seeder", "rewriter": "ollama/rewriter", "rescue": None}
    with pytest.raises(orbench.UsageError, match="no model here can be asked in batches"):
        world(batch=True, moderators=["ollama/moderator-1"], **roles)
    assert world.server.answered == 0


def test_killed_while_batches_are_under_way_nothing_is_asked_twice(world, tmp_path):
    world.out = tmp_path / "whole"
    whole = contents(world().folder)
    out = world.out = tmp_path / "killed"
    process: list[subprocess.Popen] = []
    script = ScriptedGeneration()
    asked: list[str] = []

    def reply(body):
        asked.append(json.dumps(body, sort_keys=True))
        if body["model"] == "moderator-2" and len(process) == 1 and sum("moderator-2" in each for each in asked) == 7:
            process[0].send_signal(signal.SIGKILL)
        return script(body)

    with LoopbackServer(reply) as server:
        config = tmp_path / "config.json"
        config.write_text(json.dumps(world.config(base_url=server.base_url, batch=True)), encoding="utf-8")
        command = [sys.executable, "-m", "orbench", "generate", "--config", str(config), "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        process[0].communicate()
        assert process[0].returncode == -signal.SIGKILL
        with pytest.raises(orbench.RunError, match="Add --batch to fetch them"):
            orbench.generate(config, batch=False, progress=False)
        made = orbench.generate(config, progress=False)
    assert contents(made.folder) == whole
    assert len(asked) - len(set(asked)) <= 3  # the first of each list is asked directly, once more after a kill
    reconcile(out)
