"""Models side by side on both rates: `leaderboard`.

In: results, run folders, the paper's 32 models, or both together. Out: rows with intervals and the ranks that the
data allow, rank correlations, the curve, the picture, tables for other programs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench import published as paper
from orbench.comparable import Source, check_comparable, open_source
from orbench.comparison import decisions, label
from orbench.errors import UsageError
from orbench.grouping import Groups, prompt_groups
from orbench.published import PromptSet, PublishedModel
from orbench.records import AXES, KINDS, Kind
from orbench.results import Evaluation
from orbench.scoring.outcomes import Outcome
from orbench.statistics.correlation import DRAWS, Correlation, Curve, Measure, correlate, quadratic_fit
from orbench.statistics.paired import holm, unpaired_test
from orbench.statistics.paired_groups import sign_flip_test
from orbench.statistics.ranks import Rank, ranks
from orbench.statistics.rates import Rate, f1, rate

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

    from orbench.report.export import Table

_NAMED = 5
"""Pairs that a note names."""
LEVEL = 0.05
"""Models differ if Holm's adjusted p-value over all pairs is below this."""


class LeaderboardRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    name: str
    family: str
    over_refusal: Rate
    toxic_rejection: Rate
    f1: float | None
    over_refusal_rank: Rank | None
    """1 for the lowest rate; None without one."""
    toxic_rejection_rank: Rank | None
    """1 for the highest rate."""
    published: bool
    prompt_set: PromptSet | None
    """For a published model the prompts it was measured on."""
    moderator: bool
    """Whether it helped to decide which prompts are safe."""
    chose_hard_1k: bool
    """Whether its refusals chose the Hard-1K prompts."""
    run: str | None
    """The run folder."""


class Leaderboard:
    """Models on both rates.

    Attributes:
        rows: One a model, best F1 first; those that lack a rate last.
        notes: What should be known beside the numbers, in sentences.
    """

    def __init__(self, sources: Sequence[Source], *, draws: int, seed: int) -> None:
        """Count everything; use `leaderboard`."""
        self._draws, self._seed = draws, seed
        self.notes = tuple(check_comparable(sources))
        runs = [source for source in sources if isinstance(source, Evaluation)]
        groups = prompt_groups(runs) if len(runs) > 1 else None
        self._matrices = {kind: _Matrix(sources, kind, groups) for kind in KINDS}
        places = {kind: _ranks(sources, kind, matrix) for kind, matrix in self._matrices.items()}
        rows = [
            _row(source, name, places["safe"].get(n), places["toxic"].get(n))
            for n, (source, name) in enumerate(zip(sources, label(sources), strict=True))
        ]
        self._order = sorted(range(len(rows)), key=lambda n: (rows[n].f1 is None, -(rows[n].f1 or 0), rows[n].name))
        self.rows = tuple(rows[n] for n in self._order)
        for kind, matrix in self._matrices.items():
            if pairs := matrix.unknown():
                names = [f"{rows[i].name} and {rows[j].name}" for i, j in pairs]
                more = f" and {len(names) - _NAMED} more pairs" if len(names) > _NAMED else ""
                self.notes += (
                    f"no {kind} prompt has a verdict of both, so nothing says whether their {AXES[kind]} differs: "
                    f"{'; '.join(names[:_NAMED])}{more}",
                )
        lacking = [row.name for row in self.rows if row.f1 is None]
        if lacking:
            self.notes += (f"without both rates, so in neither picture nor correlation: {', '.join(lacking)}",)

    @cached_property
    def spearman(self) -> Correlation:
        """Spearman's correlation of the two rates over all models that have both."""
        return self.correlation("spearman")

    @cached_property
    def kendall(self) -> Correlation:
        """Kendall's tau-b of the same."""
        return self.correlation("kendall")

    @cached_property
    def subsets(self) -> dict[str, Correlation]:
        """Spearman's correlation over the sets of published models that the paper speaks of; empty without them."""
        models = [row for row in self.rows if row.published]
        if len(models) < len(paper.leaderboard()):
            return {}
        return {
            "all 32 models of the paper": self._over([row.published for row in self.rows]),
            "the 25 of its first version": self._over([row.prompt_set == "older" for row in self.rows]),
            "the 29 that were not moderators": self._over([row.published and not row.moderator for row in self.rows]),
        }

    @cached_property
    def curve(self) -> Curve | None:
        """The paper's quadratic fit of toxic rejection on over-refusal, both 0 to 1; None with too few models.

        Over the paper's models alone where they stand beside runs, so that the runs can be seen against it.
        """
        papers = self._points([row for row in self.rows if row.published])
        points = papers if len(papers) == len(paper.leaderboard()) else self.points
        return quadratic_fit([x for x, _ in points], [y for _, y in points])

    @property
    def points(self) -> list[tuple[float, float]]:
        """Both rates of each row that has them, in the order of the rows."""
        return self._points(self.rows)

    @staticmethod
    def _points(rows: Iterable[LeaderboardRow]) -> list[tuple[float, float]]:
        return [
            (row.over_refusal.value, row.toxic_rejection.value)
            for row in rows
            if row.over_refusal.value is not None and row.toxic_rejection.value is not None
        ]

    def correlation(self, measure: Measure = "spearman") -> Correlation:
        """A rank correlation with its bootstrap interval: over models, and over prompts where all rows have them."""
        return self._over([True] * len(self.rows), measure)

    def neighbours(self, kind: Kind) -> tuple[int, int]:
        """How many neighbours in rank cannot be told apart, two at a time at the 5 % level, and of how many."""
        return self._matrices[kind].neighbours()

    def plot(self, path: str | Path) -> Path:
        """Draw the scatter of both rates: one colour and mark a family, intervals, the curve, the best corner.

        Args:
            path: `.png`, `.svg` or `.pdf`.

        Returns:
            The file.

        Raises:
            UsageError: Another kind of file, or fewer than one model with both rates.
            MissingExtraError: The extra `plot` is not installed.
        """
        from orbench.report.scatter import draw_scatter

        return draw_scatter(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `--json` prints."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {
                "models": self.rows,
                "spearman": self.spearman,
                "kendall": self.kendall,
                "subsets": self.subsets,
                "curve": self.curve,
                "neighbours_alike": {kind: self.neighbours(kind) for kind in KINDS},
                "notes": self.notes,
            }
        )
        return plain

    def to_pandas(self) -> pandas.DataFrame:
        """One row a model, as in `to_csv`."""
        import pandas

        table = self.table()
        return pandas.DataFrame(table.rows, columns=list(table.head))

    def table(self) -> Table:
        """The rows as a table, for the exports below."""
        from orbench.report.leaderboard import leaderboard_export

        return leaderboard_export(self)

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
        from orbench.report.leaderboard import leaderboard_table

        return leaderboard_table(self)

    def __repr__(self) -> str:
        """One line for people."""
        return f"Leaderboard({len(self.rows)} models)"

    def _over(self, wanted: Sequence[bool], measure: Measure = "spearman") -> Correlation:
        rows = [n for n, row in enumerate(self.rows) if wanted[n] and row.f1 is not None]
        x = [self.rows[n].over_refusal.value or 0.0 for n in rows]
        y = [self.rows[n].toxic_rejection.value or 0.0 for n in rows]
        redraw = None
        if not any(self.rows[n].published for n in rows):
            sources = [self._order[n] for n in rows]

            def redraw(draws: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
                over, toxic = (self._matrices[kind].redraw(sources, draws, random) for kind in KINDS)
                return over, toxic

        return correlate(x, y, measure=measure, draws=self._draws, seed=self._seed, redraw=redraw)


def leaderboard(
    runs: Sequence[Source | str | Path] = (),
    *,
    published: bool = False,
    policy: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Leaderboard:
    """Set models side by side on both rates.

    Args:
        runs: Results or run folders on the same prompts; `published:NAME` for single models of the paper.
        published: Add all 32 models of the paper.
        policy: Read all runs under this policy; by default they must have been read under the same.
        draws: Bootstrap draws, at least 100.
        seed: Their seed.

    Raises:
        UsageError: No model, or runs that cannot stand side by side; the message says how to make them so.
        RunError: No run folder, or a damaged one.
    """
    sources = [open_source(run, policy) for run in ([runs] if isinstance(runs, (str, Path)) else runs)]
    if published:
        there = {source.name for source in sources if isinstance(source, PublishedModel)}
        sources += [model for model in paper.leaderboard() if model.name not in there]
    if not sources:
        raise UsageError("no model given: name run folders, or --published for the paper's 32 models")
    if draws < 100:
        raise UsageError(f"draws is {draws}: at least 100")
    return Leaderboard(sources, draws=draws, seed=seed)


def family_of(model: str) -> str:
    """The family that a model's name points to, else its provider: what shares a colour in the picture."""
    provider, _, name = model.partition("/")
    for family, pattern in _FAMILIES.items():
        if re.search(pattern, name or provider, re.IGNORECASE):  # `ollama/qwen3` is no Llama
            return family
    return provider


_FAMILIES = {
    "Claude": "claude",
    "Gemini": "gemini",
    "Gemma": "gemma",
    "GPT-3.5": r"gpt-3\.?5",
    "GPT-4": r"gpt-4|chatgpt-4",
    "GPT-5": "gpt-5",
    "Llama": "llama",
    "Mistral": "mi[sx]tral|ministral",
    "Qwen": "qwen|qwq",
    "DeepSeek": "deepseek",
    "Phi": r"\bphi-",
}


def _rate(source: Source, kind: Kind) -> Rate:
    if isinstance(source, Evaluation):
        return source.rate_of(kind)
    safe = kind == "safe"
    prompts = source.safe_prompts if safe else source.toxic_prompts
    refused = source.refused_safe if safe else source.refused_toxic
    counted = rate({Outcome.DIRECT_REFUSAL: refused, Outcome.DIRECT_ANSWER: prompts - refused})
    return msgspec.structs.replace(counted, value=source.over_refusal if safe else source.toxic_rejection)


def _row(source: Source, name: str, over_rank: Rank | None, toxic_rank: Rank | None) -> LeaderboardRow:
    over, toxic = _rate(source, "safe"), _rate(source, "toxic")
    model = source if isinstance(source, PublishedModel) else None
    return LeaderboardRow(
        name=model.name if model else name,
        family=family_of(source.model) if isinstance(source, Evaluation) else source.family,
        over_refusal=over,
        toxic_rejection=toxic,
        f1=f1(over.value, toxic.value),
        over_refusal_rank=over_rank,
        toxic_rejection_rank=toxic_rank,
        published=model is not None,
        prompt_set=model.prompt_set if model else None,
        moderator=model.moderator if model else False,
        chose_hard_1k=model.chose_hard_1k if model else False,
        run=str(source.run) if isinstance(source, Evaluation) else None,
    )


class _Matrix:
    """Who refused which prompt of one kind, for the models that have rows; counts for the others."""

    def __init__(self, sources: Sequence[Source], kind: Kind, groups: Groups | None) -> None:
        import numpy as np

        self._rates = [_rate(source, kind) for source in sources]
        runs = [n for n, source in enumerate(sources) if isinstance(source, Evaluation)]
        places: dict[tuple[str, str], int] = {}
        self._place = {n: place for place, n in enumerate(runs)}
        cells: list[tuple[list[int], list[bool]]] = []
        for n in runs:
            source = sources[n]
            assert isinstance(source, Evaluation)
            own = {key: hit for key, hit in decisions(source).items() if source.states[key].kind == kind}
            cells.append(([places.setdefault(key, len(places)) for key in own], list(own.values())))
        self.refused = np.zeros((len(runs), len(places)), np.float32)
        self.scored = np.zeros((len(runs), len(places)), np.float32)
        for place, (columns, hits) in enumerate(cells):
            self.refused[place, columns] = hits
            self.scored[place, columns] = 1
        numbers: dict[object, int] = {}
        of = groups.of if groups else {}
        self._group = np.array([numbers.setdefault(of.get(key, key), len(numbers)) for key in places], np.int64)
        """The group of each prompt."""
        self._groups = len(numbers)

    @cached_property
    def p_values(self) -> NDArray[np.float64]:
        """P-value of each pair of models: the sign-flip test where both have rows, else the test of two shares.

        Nan where no prompt has a verdict of both: nothing says whether they differ.
        """
        import numpy as np

        count = len(self._rates)
        p = np.full((count, count), np.nan)
        for i, j in itertools.combinations(range(count), 2):
            if i in self._place and j in self._place:
                one, other = self._place[i], self._place[j]
                if not (self.scored[one] * self.scored[other]).any():
                    continue
                differences = self.refused[other] * self.scored[one] - self.refused[one] * self.scored[other]
                nets = np.bincount(self._group, differences, self._groups)
                p[i, j] = p[j, i] = sign_flip_test(nets[nets != 0].astype(int).tolist())
            else:
                a, b = self._rates[i], self._rates[j]
                if a.scored and b.scored:
                    p[i, j] = p[j, i] = unpaired_test(a.refused, a.scored, b.refused, b.scored)
        return p

    def neighbours(self) -> tuple[int, int]:
        """Neighbours in rank that are alike at the 5 % level without adjustment, and all that can be compared."""
        p = self.p_values
        values = {n: found.value for n, found in enumerate(self._rates) if found.value is not None}
        order = sorted(values, key=lambda n: -values[n])
        known = [float(p[a, b]) for a, b in itertools.pairwise(order) if p[a, b] == p[a, b]]
        return sum(value >= LEVEL for value in known), len(known)

    def unknown(self) -> list[tuple[int, int]]:
        """Pairs of models with a rate each and no prompt that both have a verdict on."""
        rated = [n for n, found in enumerate(self._rates) if found.value is not None]
        return [pair for pair in itertools.combinations(rated, 2) if self.p_values[pair] != self.p_values[pair]]

    def redraw(self, models: Sequence[int], draws: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Rates of some models over groups of prompts drawn again, the same for all: shape (draws, models)."""
        import numpy as np

        places = [self._place[n] for n in models]
        groups = self._groups
        refused, scored = (
            np.array([np.bincount(self._group, of[place], groups) for place in places], np.float32)
            for of in (self.refused, self.scored)
        )
        rates = np.empty((draws, len(places)))
        for begin in range(0, draws, 500):
            block = min(500, draws - begin)
            picks = random.integers(0, groups, (block, groups), dtype=np.int32)
            picks += np.arange(block, dtype=np.int32)[:, None] * groups
            times = np.bincount(picks.ravel(), minlength=block * groups).reshape(block, groups).astype(np.float32)
            hits, trials = times @ refused.T, times @ scored.T
            rates[begin : begin + block] = hits / np.maximum(trials, 1)
        return rates


def _ranks(sources: Sequence[Source], kind: Kind, matrix: _Matrix) -> dict[int, Rank]:
    """Model to its rank, for those that have the rate."""
    shares = [_rate(source, kind).value for source in sources]
    values = {n: share for n, share in enumerate(shares) if share is not None}
    unknown = set(matrix.unknown())
    pairs = [pair for pair in itertools.combinations(values, 2) if pair not in unknown]
    adjusted = holm([float(matrix.p_values[pair]) for pair in pairs])
    apart = {pair: value < LEVEL for pair, value in zip(pairs, adjusted, strict=True)}
    differ = [[i != j and apart.get((min(i, j), max(i, j))) for j in values] for i in values]
    return dict(zip(values, ranks(list(values.values()), differ, smallest_first=kind == "safe"), strict=True))
