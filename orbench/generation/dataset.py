"""`Dataset`: a folder of `orbench generate`, read back: counts, votes, splits, and how each was come by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orbench.engine.jsonl import read_lines
from orbench.errors import RunError, SplitError
from orbench.generation.facts import COUNTS, emptiness
from orbench.generation.folder import AUDIT, DROPS, REWRITES, SEEDS, SPLITS, VOTES, read_generation
from orbench.generation.records import Item, Vote
from orbench.generation.selection import TOXIC_CLEANING, TOXIC_SAMPLE, Drop
from orbench.report.costs import cost_line
from orbench.report.format import plural
from orbench.report.table import columns
from orbench.splits import Split, load_split

_NAMES = {"all": "80k", "hard": "hard-1k", "toxic": "toxic"}
"""A split's file to the name under which `--data` takes it."""

_LEFT_OUT = {
    "seeds left out": ("seeds",),
    "rewrites not in `all`": ("rewrites", "moderation", "cleaning"),
    "toxic prompts not in `toxic`": (TOXIC_CLEANING, TOXIC_SAMPLE),
}
"""What is left out of what, to the stages whose drops add up to it."""


class Dataset:
    """What a generation made.

    Attributes:
        folder: Where it lies.
        facts: Contents of `generation.json`.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Use `load` to read a folder."""
        self.folder = folder
        self.facts = facts

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """The data set of a finished or partial generation.

        Raises:
            orbench.RunError: No such folder, a damaged one, or one whose first command was killed before it counted.
        """
        facts = read_generation(Path(folder))
        if "counts" not in facts:
            raise RunError(f"{folder}: its command was stopped before anything was counted: run it again")
        return cls(Path(folder), facts)

    @property
    def counts(self) -> dict[str, int]:
        """`seeds`, `rewrites` that were not dropped at once, `kept`, `hard`, `toxic`: rows of the splits."""
        return dict(self.facts["counts"])

    @property
    def categories(self) -> dict[str, dict[str, int]]:
        """The same for each category."""
        return {name: dict(counts) for name, counts in self.facts["categories"].items()}

    @property
    def moderators(self) -> dict[str, dict[str, int]]:
        """Votes on prompts by moderator: `toxic`, `safe`, `abstained`."""
        return {name: dict(votes) for name, votes in self.facts["moderators"].items()}

    @property
    def usage(self) -> dict[str, Any]:
        """Requests and tokens of all roles together, and `roles` apart; `cost_usd` None where a price is unknown."""
        return dict(self.facts["usage"])

    @property
    def drops(self) -> dict[str, dict[str, int]]:
        """Stage to reason to count."""
        return {stage: dict(reasons) for stage, reasons in self.facts["drops"].items()}

    @property
    def open(self) -> int:
        """Calls that failed, or for which there was no money, and that the next run of the same command makes.

        A selection done alone counts what it lacks; a run of all stages makes it.
        """
        return int(self.facts["open"])

    @property
    def is_empty(self) -> bool:
        """Whether what was done ended with nothing to go on with, and no call is owed that may bring it.

        No prompt was kept, or a stage done alone made nothing. The command ends with exit code 1 then.
        """
        return emptiness(self.facts) is not None

    def split(self, name: str) -> Split:
        """The split `all`, `hard` or `toxic`, as `load_split` gives it.

        Raises:
            orbench.SplitError: There is none: it has no prompts, or nothing was selected yet.
        """
        if name in _NAMES and not (self.folder / SPLITS / f"{name}.csv").exists():
            raise SplitError(f"{self.folder}: no split {name!r}: it has no prompts, or nothing was selected yet")
        return load_split(_NAMES.get(name, name), data=self.folder / SPLITS)

    def seeds(self) -> Iterator[Item]:
        """Every row that was read out of the seeder's replies or given, dropped ones included, in order of arrival."""
        return read_lines(self.folder / SEEDS, Item)

    def rewrites(self) -> Iterator[Item]:
        """Likewise of the rewriter's."""
        return read_lines(self.folder / REWRITES, Item)

    def votes(self) -> Iterator[Vote]:
        """Every reply of a moderator; the last for (prompt, what, moderator) counts."""
        return read_lines(self.folder / VOTES, Vote)

    def dropped(self) -> Iterator[Drop]:
        """Every rewrite that is not in `all`, and every toxic prompt that is not in `toxic`, with its reason.

        So a rewrite that stayed toxic may have two; rows that were dropped at once are in `seeds` and `rewrites`.
        """
        return read_lines(self.folder / DROPS, Drop)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints; where `stale` is true, `kept`, `hard` and `toxic` are of an earlier selection."""
        names = (
            "counts", "categories", "moderators", "decided", "rescue", "usage", "calls", "drops", "given", "open",
            "dry", "stage", "stale",
        )  # fmt: skip
        return {"folder": str(self.folder), **{name: self.facts[name] for name in names if name in self.facts}}

    def __str__(self) -> str:
        """Tables for people."""
        given = self.facts.get("given") or {}
        is_given = given.get("what") == "prompts"  # then `rewrites` are what was given
        shown = {"rewrites": "prompts", "kept": "safe"} if is_given else {name: name for name in COUNTS[:3]}
        if "splits" in self.facts:
            shown |= {name: name for name in COUNTS[2:] if name != "hard" or self.facts.get("panel")}
        rows = [["category", *shown.values()]]
        rows += [[name, *(f"{counts[key]:,}" for key in shown)] for name, counts in self.categories.items()]
        rows += [["all", *(f"{self.counts[key]:,}" for key in shown)]]
        lines = [str(self.folder), "", *columns(rows)]
        if self.moderators:
            votes = [["moderator", "safe", "toxic", "abstained"]]
            votes += [
                [name, f"{v['safe']:,}", f"{v['toxic']:,}", f"{v['abstained']:,}"]
                for name, v in self.moderators.items()
            ]
            lines += ["", *columns(votes)]
        lines += [""]
        if given:
            repeated = f", {n:,} of them repeated" if (n := given["rows"] - given["different"]) else ""
            lines += [f"given: {plural(given['rows'], 'row')} of {given['file']}{repeated}"]
        is_audit = self.facts.get("stage") == "moderation"
        if is_audit and (decided := [f"{name} {n:,}" for name, n in self.facts["decided"].items() if n]):
            lines += [f"decided: {', '.join(decided)}; {self.folder / AUDIT} has every prompt with every vote"]
        for what, stages in _LEFT_OUT.items():
            reasons: Counter[str] = Counter()
            for stage in stages:
                reasons.update(self.drops.get(stage, {}))
            dropped = [f"{reason} {n:,}" for reason, n in reasons.items() if n]
            if dropped and not (is_audit and (is_given or self.facts.get("stale"))):
                lines += [f"{what.replace('rewrites', shown['rewrites'])}: " + ", ".join(dropped)]
        for role, outcomes in self.facts.get("calls", {}).items():
            if lost := [
                f"{outcomes[name]:,} {name}" for name in ("refused", "blocked", "unreadable") if outcomes.get(name)
            ]:
                lines += [f"{role}: of {sum(outcomes.values()):,} replies {', '.join(lost)}"]
        for rewriter, found in self.facts.get("too_few", {}).items():
            if found["came"] < found["asked"]:
                lines += [f"rewriter {rewriter}: gave {found['came']:,} of the {found['asked']:,} rewrites asked for"]
        rescue = self.facts.get("rescue") or {}
        if rescue.get("answered"):
            lines += [
                f"rescue: {rescue['brought_back']:,} of {plural(rescue['voted_toxic'], 'prompt')} voted toxic came "
                f"back; {rescue['refusals']:,} of {plural(rescue['answered'], 'answer')} are refusals"
            ]
        panel = self.facts.get("panel")
        if panel and self.counts["kept"] and not self.counts["hard"] and self.facts["config"]["hard_size"]:
            least = f"{panel['hard_min']} of the {len(panel['members'])}"
            lines += [
                f"`hard` is empty: {least} models of the panel refused no prompt; a lower --hard-min, or another "
                "panel, may choose some"
            ]
        if self.open and self.facts.get("unasked"):
            lines += [f"{plural(self.open, 'call')} not made for want of money: a higher --max-cost goes on"]
        elif self.open:
            how = "without --stage" if self.facts.get("stage") == "selection" else "again"
            lines += [f"{plural(self.open, 'call')} owed: run the same command {how}"]
        for role, why in self.facts.get("failing", {}).items():
            lines += [f"{role}: {why}"]
        if unparted := self.facts.get("unparted"):
            lines += [f"no train and test: {unparted}"]
        if self.facts.get("stale") and any((self.folder / SPLITS).glob("*.csv")):
            lines += ["the splits are of an earlier selection: run the same command without --stage to draw them anew"]
        if cost := cost_line({name: spent for name, spent in self.usage.items() if name != "roles"}):
            lines += [cost]
        for category in self.facts.get("dry", []):
            lines += [
                f"{category}: the seeder gave nothing new any more before its target; another --seeder would go on"
            ]
        return "\n".join(lines)
