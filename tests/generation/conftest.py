"""A small world in which data sets are made, and what must add up in every folder."""

import json
from collections import Counter

import pytest

import orbench
from orbench.testing import LoopbackServer, ScriptedGeneration

MODERATORS = ["openai/moderator-1", "openai/moderator-2", "openai/moderator-3"]


def lines(path):
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def last(rows, *names):
    """The last row for each key."""
    return {tuple(row[name] for name in names): row for row in rows}


def reconcile(folder):
    """Check that every row of a finished folder is accounted for, from the first call to the last split."""
    facts = json.loads((folder / "generation.json").read_bytes())
    seeds, rewrites = lines(folder / "seeds.jsonl"), lines(folder / "rewrites.jsonl")
    for calls, rows in (("seeds", seeds), ("rewrites", rewrites)):
        made = lines(folder / f"responses/{calls}.jsonl")
        read = [call for call in made if call["outcome"] == "read"]
        assert len({(call["id"], call["ask"]) for call in read}) == len(read), "a call was made twice"
        found = last([row for row in rows if row["model"] != "given"], "call", "place")
        assert len(found) == sum(call["items"] for call in read), "an item was lost or counted twice"
        assert len({row["id"] for row in found.values() if not row["dropped"]}) == sum(
            not row["dropped"] for row in found.values()
        )
    final_seeds, final_rewrites = last(seeds, "call", "place"), last(rewrites, "call", "place")
    counts, drops = facts["counts"], facts["drops"]
    assert len(final_seeds) == counts["seeds"] + sum(drops["seeds"].values())
    assert len(final_rewrites) == counts["rewrites"] + sum(drops["rewrites"].values())
    assert counts["rewrites"] == counts["kept"] + sum(drops["moderation"].values()) + sum(drops["cleaning"].values())
    votes = lines(folder / "votes.jsonl")
    final = [v for v in votes if v["verdict"] != "abstained"]
    assert max(Counter((v["prompt_id"], v["of"], v["moderator"]) for v in final).values(), default=1) == 1
    decided = {row["id"] for row in final_rewrites.values() if not row["dropped"]}
    assert set(last(votes, "prompt_id", "of", "moderator")) >= {
        (id, "prompt", model["model"]) for id in decided for model in facts["config"]["moderators"]
    }
    split = {name: (folder / f"splits/{name}.csv") for name in ("all", "hard", "toxic")}
    for name, column in (("all", "kept"), ("hard", "hard"), ("toxic", "toxic")):
        rows = (
            len(orbench.load_split(f"safe={split[name]}" if name != "toxic" else f"toxic={split[name]}"))
            if (split[name].exists())
            else 0
        )
        assert rows == counts[column] == sum(each[column] for each in facts["categories"].values())
    gone = [row for row in lines(folder / "drops.jsonl") if row["stage"] in ("moderation", "cleaning")]
    assert all(row["reason"] for row in gone)
    assert len(gone) + counts["kept"] == counts["rewrites"]
    return facts


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Runs `orbench.generate` on a small world; keyword arguments change its configuration."""
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")

    class World:
        out = tmp_path / "set"

        def __init__(self):
            self.server = None

        def config(self, **changes):
            config = {
                "out": str(self.out),
                "categories": ["privacy", "illegal"],
                "seeder": "openai/seeder",
                "rewriter": "openai/rewriter",
                "rescue": "openai/rescue",
                "moderators": MODERATORS,
                "seeds_per_category": 10,
                "seeds_per_call": 5,
                "rewrites": 3,
            }
            return {name: value for name, value in {**config, **changes}.items() if value is not None}

        def __call__(self, reply=None, *, faults=None, stage=None, **changes):
            with LoopbackServer(reply or ScriptedGeneration(), faults=faults) as self.server:
                config = self.config(base_url=self.server.base_url, **changes)
                return orbench.generate(config, stage=stage, progress=False)

    return World()


@pytest.fixture
def prices(tmp_path):
    """A price list for every model of the world."""
    path = tmp_path / "prices.csv"
    path.write_text("model,input,output\nopenai/*,1,2\n", encoding="utf-8")
    return path
