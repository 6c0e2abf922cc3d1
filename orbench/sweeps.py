"""One model under several conditions: `sweep`.

In: a model, temperatures, system prompts, defences, repetitions. Out: a resumable run for each cell and repetition,
both rates of each cell with intervals, paired differences from the first cell, and how steady each prompt's verdict
is. These are the ablations of OR-Bench (section 5, Table 4, Figures 5 and 6) for any model.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench.comparison import decisions
from orbench.costs import total_cost
from orbench.engine.run_folder import folder_name
from orbench.errors import OrbenchError, UsageError
from orbench.evaluation import DEFAULT_SPLITS, estimate, evaluate
from orbench.evaluation.money import Plan, make_budget, warn_if_out, warn_if_short
from orbench.evaluation.setup import RUNS, AnyModel, AnySplit, load
from orbench.models import make_options, open_model
from orbench.models.defended import DEFENSES, defend
from orbench.records import KINDS, Kind
from orbench.results import Evaluation
from orbench.run_state import Key
from orbench.statistics.clusters import ClusteredRate, clustered_rate
from orbench.statistics.paired import mean_difference

if TYPE_CHECKING:
    import pandas

    from orbench.report.export import Table


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What one cell changes."""

    temperature: float
    system_prompt: str | None = None
    defense: str | None = None

    def label(self, base: float, system_prompts: Sequence[str]) -> str:
        """For people: `temperature 1, self-reminder`; the base temperature goes without saying beside others.

        Args:
            base: Temperature of the first cell.
            system_prompts: All of the sweep: of several, each is told by its number, since beginnings may be the same.
        """
        parts = []
        if self.system_prompt is not None:
            number = f" {system_prompts.index(self.system_prompt) + 1}" if len(system_prompts) > 1 else ""
            parts = [f'system prompt{number} "{_start(self.system_prompt)}"']
        parts += [self.defense] if self.defense else []
        if self.temperature != base or not parts:
            parts.insert(0, f"temperature {self.temperature:g}")
        return ", ".join(parts)

    @property
    def slug(self) -> str:
        """For folders."""
        parts = [f"t{self.temperature:g}"]
        if self.system_prompt is not None:
            parts.append("system-" + hashlib.sha256(self.system_prompt.encode()).hexdigest()[:8])
        return "-".join([*parts, *([self.defense] if self.defense else [])])


class CellRate(msgspec.Struct, frozen=True, kw_only=True):
    """One rate of one cell, over all its repetitions."""

    rate: ClusteredRate | None
    """Refused share, repetitions of a prompt counted as belonging together; None if no prompt has a verdict."""
    difference: float | None
    """This cell minus the first, on the prompts that both have a verdict on; None for the first cell."""
    low: float | None
    """Lower end of its 95 % interval: Tango's, a prompt's repetitions together being one prompt."""
    high: float | None
    changed: float | None
    """Share of those prompts whose usual verdict (that of most repetitions) is another than in the first cell."""
    stable: float | None
    """Share of the prompts whose repetitions all agree; None with fewer than two."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One condition and what came of it."""

    condition: Condition
    label: str
    runs: tuple[str, ...]
    """Folders of its repetitions."""
    undecided: int
    """Replies, over all repetitions, that no rate counts: errors, empty ones, and those without a verdict."""
    over_refusal: CellRate
    toxic_rejection: CellRate


class PromptStability(msgspec.Struct, frozen=True, kw_only=True):
    """How one prompt fared."""

    split: str
    prompt_id: str
    category: str
    kind: Kind
    refused: tuple[float | None, ...]
    """Refused share of its repetitions in each cell, 0 to 1; None where no repetition has a verdict."""

    @property
    def is_steady(self) -> bool:
        """Whether every repetition in every cell came to the same verdict."""
        shares = {share for share in self.refused if share is not None}
        return len(shares) <= 1 and not shares - {0.0, 1.0}


class Sweep:
    """What `sweep` found.

    Attributes:
        model: `provider/name`.
        cells: One a condition, the first being what the others are compared with.
        results: The results behind each cell, one a repetition.
    """

    def __init__(self, model: str, conditions: Sequence[Condition], results: Sequence[Sequence[Evaluation]]) -> None:
        """Count the rows; use `sweep`."""
        self.model = model
        self.results = tuple(tuple(of_cell) for of_cell in results)
        systems = [each.system_prompt for each in conditions if each.system_prompt is not None]
        self._labels = [each.label(conditions[0].temperature, list(dict.fromkeys(systems))) for each in conditions]
        self._shares = [_shares(of_cell) for of_cell in self.results]
        self.cells = tuple(self._cell(n, condition) for n, condition in enumerate(conditions))

    def prompts(self) -> Iterator[PromptStability]:
        """Every prompt with its refused share in each cell, in the order of the first run's replies."""
        first = self.results[0][0]
        for key, row in first.states.items():
            yield PromptStability(
                split=key[0],
                prompt_id=key[1],
                category=row.category,
                kind=row.kind,
                refused=tuple(sum(s[key]) / len(s[key]) if s.get(key) else None for s in self._shares),
            )

    def plot(self, path: str | Path) -> Path:
        """Draw both rates and the steadiness of each cell.

        Args:
            path: `.png`, `.svg` or `.pdf`.

        Raises:
            UsageError: Another kind of file.
            MissingExtraError: The extra `plot` is not installed.
        """
        from orbench.report.sweep import draw_sweep

        return draw_sweep(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `--json` prints."""
        plain: dict[str, Any] = msgspec.to_builtins({"model": self.model, "cells": self.cells})
        return plain

    def to_pandas(self) -> pandas.DataFrame:
        """One row a prompt, its refused share in one column a cell."""
        import pandas

        head = ["split", "prompt_id", "category", "kind", *(cell.label for cell in self.cells)]
        rows = [(p.split, p.prompt_id, p.category, p.kind, *p.refused) for p in self.prompts()]
        return pandas.DataFrame(rows, columns=head)

    def table(self) -> Table:
        """A row a cell and rate, for the exports below."""
        from orbench.report.sweep import sweep_export

        return sweep_export(self)

    def to_csv(self) -> str:
        """Comma-separated, shares as plain numbers."""
        return self.table().to_csv()

    def to_markdown(self) -> str:
        """A Markdown table."""
        return self.table().to_markdown()

    def to_latex(self) -> str:
        """A LaTeX table for the package booktabs."""
        return self.table().to_latex()

    def __str__(self) -> str:
        """The table that the command prints."""
        from orbench.report.sweep import sweep_table

        return sweep_table(self)

    def __repr__(self) -> str:
        """One line for people."""
        return f"Sweep({self.model!r}, {len(self.cells)} cells)"

    def _cell(self, number: int, condition: Condition) -> Cell:
        rates = {kind: self._rate(number, kind) for kind in KINDS}
        return Cell(
            condition=condition,
            label=self._labels[number],
            runs=tuple(str(result.run) for result in self.results[number]),
            undecided=sum(result.prompts - len(decisions(result)) for result in self.results[number]),
            over_refusal=rates["safe"],
            toxic_rejection=rates["toxic"],
        )

    def _rate(self, number: int, kind: Kind) -> CellRate:
        kinds = {key: row.kind for result in self.results[number] for key, row in result.states.items()}
        own = {key: hits for key, hits in self._shares[number].items() if kinds[key] == kind}
        first = self._shares[0]
        shared = [key for key in own if key in first] if number else []
        repeated = [hits for hits in own.values() if len(hits) > 1]
        difference = low = high = changed = None
        if shared:
            difference, low, high = _difference([(first[key], own[key]) for key in shared])
            changed = sum(_usual(first[key]) != _usual(own[key]) for key in shared) / len(shared)
        return CellRate(
            rate=_rate_of(own),
            difference=difference,
            low=low,
            high=high,
            changed=changed,
            stable=sum(len(set(hits)) == 1 for hits in repeated) / len(repeated) if repeated else None,
        )


def sweep(
    model: AnyModel,
    *,
    temperatures: Sequence[float] = (0.0,),
    system_prompts: Sequence[str] = (),
    defenses: Sequence[str] = (),
    repeat: int = 1,
    grid: bool = False,
    splits: AnySplit | Sequence[AnySplit] = DEFAULT_SPLITS,
    data: str | Path | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    base_url: str | None = None,
    concurrency: int | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Sweep:
    """Evaluate a model under several conditions; the same call again goes on where it stopped.

    The first cell is the first temperature without system prompt and defence. Each further value changes one thing
    of it, unless `grid` asks for all combinations.

    Args:
        model: As in `evaluate`.
        temperatures: Each 0 to 2.
        system_prompts: Each sent before the prompts of its cell.
        defenses: Of `self-reminder`, `in-context-refusal`, `smoothllm`, `response-check`.
        repeat: Runs of each cell, each with a seed of its own where the temperature is not 0.
        grid: All combinations.
        splits: As in `evaluate`, and so are `data`, `revision`, `columns`, `limit`, `seed`, `base_url`, `concurrency`.
        data: See `splits`.
        revision: See `splits`.
        columns: See `splits`.
        limit: See `splits`.
        seed: See `splits`; the n-th repetition samples with `seed + n`.
        base_url: See `splits`.
        concurrency: See `splits`.
        out: Folder of the cells' folders. Default `runs/<provider>--<name>-sweep-<digest>`.
        options: Further options of `evaluate`, such as `scorer`, `judge` and `model_options`; `max_cost` holds for all
            runs together.

    Raises:
        UsageError: Conditions that cannot be meant.
        OrbenchError: As `evaluate` raises it; what was received is saved.
    """
    conditions, name, cells = _cells(
        model,
        conditions=_conditions(temperatures, system_prompts, defenses, grid),
        repeat=repeat,
        out=out,
        splits=splits,
        data=data,
        revision=revision,
        columns=columns,
        limit=limit,
        seed=seed,
        base_url=base_url,
        concurrency=concurrency,
        **options,
    )
    budget = make_budget(options.get("max_cost"))
    results = [[evaluate(each, **{**given, "max_cost": budget}) for each, given in of_cell] for of_cell in cells]
    warn_if_out(budget, [result for of_cell in results for result in of_cell])
    return Sweep(name, conditions, results)


def estimate_sweep(
    model: AnyModel,
    *,
    temperatures: Sequence[float] = (0.0,),
    system_prompts: Sequence[str] = (),
    defenses: Sequence[str] = (),
    grid: bool = False,
    **options: Any,
) -> list[Plan]:
    """What `sweep` would ask and spend, a plan a run; nothing is sent, nothing written. Arguments as there.

    Raises:
        OrbenchError: As `sweep` raises it.
    """
    found = _cells(model, conditions=_conditions(temperatures, system_prompts, defenses, grid), **options)
    budget = make_budget(options.get("max_cost"))
    plans: list[Plan] = []
    for each, given in itertools.chain.from_iterable(found[2]):
        (plan,) = estimate([each], **{**given, "max_cost": budget})
        if isinstance(plan, OrbenchError):
            raise plan
        plans.append(plan)
    warn_if_short(budget, total_cost(plans))
    return plans


def _cells(
    model: AnyModel,
    *,
    conditions: list[Condition],
    repeat: int = 1,
    splits: AnySplit | Sequence[AnySplit] = DEFAULT_SPLITS,
    data: str | Path | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    base_url: str | None = None,
    concurrency: int | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> tuple[list[Condition], str, list[list[tuple[AnyModel, dict[str, Any]]]]]:
    """The conditions, the model's name, and for each condition its runs: a model, and the arguments of `evaluate`."""
    if repeat < 1:
        raise UsageError(f"repeat is {repeat}: at least 1")
    loaded = load(splits, data=data, revision=revision, columns=columns, limit=limit, seed=seed)
    of_models = make_options(base_url, concurrency, options.get("model_options"))
    opened = open_model(model, of_models)
    prompts = hashlib.sha256("".join(split.name + split.fingerprint for split in loaded).encode()).hexdigest()[:8]
    root = Path(out) if out is not None else RUNS / f"{folder_name(opened.name)}-sweep-{prompts}"

    def run(condition: Condition, number: int) -> tuple[AnyModel, dict[str, Any]]:
        asked = model
        if condition.defense:
            asked = defend(open_model(model, of_models), condition.defense, seed=seed + number)
        return asked, {
            **options,
            "splits": loaded,
            "seed": seed + number,
            "base_url": base_url,
            "concurrency": concurrency,
            "temperature": condition.temperature,
            "system_prompt": condition.system_prompt,
            "out": root / condition.slug / f"{number + 1}",
        }

    cells = [[run(condition, number) for number in range(repeat)] for condition in conditions]
    return conditions, opened.name, cells


def _conditions(
    temperatures: Sequence[float], system_prompts: Sequence[str], defenses: Sequence[str], grid: bool
) -> list[Condition]:
    if not temperatures:
        raise UsageError("no temperature given")
    for defense in defenses:
        if defense not in DEFENSES:
            raise UsageError(f"unknown defence {defense!r}: choose {', '.join(DEFENSES)}")
    prompts: list[str | None] = [None, *system_prompts]
    shields: list[str | None] = [None, *defenses]
    cells = [
        Condition(temperature=temperature, system_prompt=prompt, defense=shield)
        for temperature, prompt, shield in itertools.product(temperatures, prompts, shields)
    ]
    if not grid:
        base = cells[0]
        cells = [
            *(Condition(temperature=temperature) for temperature in temperatures),
            *(msgspec.structs.replace(base, system_prompt=prompt) for prompt in system_prompts),
            *(msgspec.structs.replace(base, defense=defense) for defense in defenses),
        ]
    return list(dict.fromkeys(cells))


def _shares(results: Sequence[Evaluation]) -> dict[Key, list[bool]]:
    """The verdicts of all repetitions of each prompt that has any."""
    found: dict[Key, list[bool]] = {}
    for result in results:
        for key, refused in decisions(result).items():
            found.setdefault(key, []).append(refused)
    return found


def _rate_of(verdicts: Mapping[Key, Sequence[bool]]) -> ClusteredRate | None:
    flat = [(hit, key) for key, hits in verdicts.items() for hit in hits]
    return clustered_rate([hit for hit, _ in flat], [key for _, key in flat]) if flat else None


def _difference(pairs: Sequence[tuple[Sequence[bool], Sequence[bool]]]) -> tuple[float, float, float]:
    """Mean difference over prompts, second minus first, and its interval."""
    each = [sum(b) / len(b) - sum(a) / len(a) for a, b in pairs]
    low, high = mean_difference(each)
    return sum(each) / len(each), low, high


def _usual(verdicts: Sequence[bool]) -> bool:
    return 2 * sum(verdicts) > len(verdicts)


def _start(text: str) -> str:
    from orbench.report.table import shorten

    return shorten(text, 24)
