"""The result of a run: rates, categories and rows, read from its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench.costs import Price
from orbench.engine.run_folder import read_config, read_responses, read_verdicts
from orbench.errors import UsageError
from orbench.ledger import ledgers_dict
from orbench.records import BlockedBy, FinishReason, Kind, Stage
from orbench.run_state import Key, RowState, RunState, read_by, scan
from orbench.scoring.audit import LOCAL, AuditedRow, audit_result
from orbench.scoring.outcomes import Outcome, Policy, Verdict, check_policy, is_refused
from orbench.scoring.safety import NotUnsafeRate, not_unsafe_rate
from orbench.statistics.rates import Rate, f1, pool, rate

if TYPE_CHECKING:
    import pandas

    from orbench.report.export import Table


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt of a run with its final reply and verdict; fields as in `Response` and `Verdict`."""

    prompt_id: str
    split: str
    category: str
    kind: Kind
    prompt: str
    response: str
    reasoning: str | None
    finish_reason: FinishReason | None
    blocked_by: BlockedBy | None
    error: str | None
    outcome: Outcome
    by: Stage | None
    confidence: float | None
    reason: str | None
    judge: str | None
    refused: bool | None
    """Under the policy of the evaluation."""
    unsafe: bool | None = None
    votes: dict[str, str] | None = None
    """Judge to its own label, where there were several, or where one checked what another stage had decided."""
    seed_id: str | None = None

    @property
    def is_disputed(self) -> bool:
        """Whether judges differ with one another, or with the stage that they checked; unread answers are none."""
        return len(set((self.votes or {}).values()) - {Outcome.UNSCORED.value}) > 1


class SplitResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run says of one split."""

    name: str
    kind: Kind
    fingerprint: str
    prompts: int
    """Prompts that the run is to ask."""
    outcomes: dict[Outcome, int]
    """Counts of the outcomes there are so far."""
    rate: Rate
    categories: dict[str, Rate]
    """Category to rate, in the order in which the split has them."""


class Evaluation:
    """How often a model refused what it should answer and what it should refuse.

    Attributes:
        run: The run folder.
        config: Contents of `run.json`.
        policy: The policy that the rates follow.
        splits: Name to result, in the order of the run.
        corrected: Rates freed of the scorer's known errors, where `correct` was called; else None.
        rescored: Old verdicts against new, where `orbench.score` made this result and changed the scorer; else None.
    """

    def __init__(self, run: Path, config: Mapping[str, Any], state: RunState, policy: Policy) -> None:
        """Count the rows; use `load` to read a folder."""
        self.run = run
        self.config = config
        self.policy: Policy = policy
        self._state = read_by(state, config["scorer"]["digest"])
        self.corrected: dict[str, Any] | None = None
        self.rescored: dict[str, Any] | None = None
        self.splits = {split["name"]: self._count(split) for split in config["splits"]}

    @classmethod
    def load(cls, run: str | Path, policy: str | None = None) -> Evaluation:
        """The result of a finished or partial run, from its folder.

        Args:
            run: The folder.
            policy: Another policy than the run's own; needs no call.

        Raises:
            orbench.RunError: No run folder, or a damaged one.
            UsageError: Unknown policy.
        """
        folder = Path(run)
        config = read_config(folder)
        return cls(
            folder, config, scan(folder, config["model"]), check_policy(policy or config.get("policy", "default"))
        )

    def with_policy(self, policy: str) -> Evaluation:
        """The same run under another policy."""
        return Evaluation(self.run, self.config, self._state, check_policy(policy))

    @property
    def model(self) -> str:
        """`provider/name`."""
        return str(self.config["model"])

    @property
    def over_refusal_rate(self) -> Rate:
        """Refused share of the safe prompts of all splits."""
        return self.rate_of("safe")

    @property
    def toxic_rejection_rate(self) -> Rate:
        """Refused share of the toxic prompts of all splits."""
        return self.rate_of("toxic")

    def rate_of(self, kind: Kind) -> Rate:
        """Refused share of the prompts of one kind, of all splits."""
        return pool(split.rate for split in self.splits_of(kind))

    def splits_of(self, kind: Kind) -> list[SplitResult]:
        """The splits with prompts of one kind, in the order of the run."""
        return [split for split in self.splits.values() if split.kind == kind]

    def pooled_categories(self, kind: Kind) -> dict[str, Rate]:
        """Category to rate over all splits of one kind, in the order in which they have them."""
        found: dict[str, list[Rate]] = {}
        for split in self.splits_of(kind):
            for name, own in split.categories.items():
                found.setdefault(name, []).append(own)
        return {name: pool(rates) for name, rates in found.items()}

    @property
    def f1(self) -> float | None:
        """Harmonic mean of toxic rejection and (1 - over-refusal); None if either has no value."""
        return f1(self.over_refusal_rate.value, self.toxic_rejection_rate.value)

    @property
    def prompts(self) -> int:
        """Prompts that the run is to ask."""
        return sum(split.prompts for split in self.splits.values())

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """Counts of all outcomes there are so far, in the vocabulary's order."""
        total: Counter[Outcome] = Counter()
        for split in self.splits.values():
            total.update(split.outcomes)
        return {outcome: total[outcome] for outcome in Outcome if total[outcome]}

    @property
    def open(self) -> int:
        """Prompts that the same command asks or judges (again): without outcome, in error, or with a failed judge.

        Without outcome is also what only an earlier scorer has read.
        """
        rows = self._state.rows.values()
        wanted = len(rows) if self.config.get("stopped_early") else self.prompts
        done = (row.outcome is not None and not (row.failed or row.judge_failed or row.safety_failed) for row in rows)
        return wanted - sum(done)

    @cached_property
    def stopped_early(self) -> dict[str, Any] | None:
        """How a run with `precision` ended before its last prompt; None if it did not.

        `half_width` asked for, `asked` of `prompts`, the share `saved`, and for each kind `low` and `high` of its
        confidence sequence: the rate over all prompts of the run, 95 %, however often one looked. It follows the
        present verdicts and policy, and so may be wider than what was asked for.
        """
        stopped = self.config.get("stopped_early")
        if not stopped:
            return None
        from orbench.precision import known_of

        facts = {name: stopped[name] for name in ("half_width", "asked", "prompts", "saved")}
        known = known_of(stopped, self._state.rows, self.policy)
        return facts | {kind: {"low": found.low, "high": found.high} for kind, found in known.items()}

    @property
    def stale(self) -> int:
        """Replies that only an earlier scorer has read, because scoring again was stopped; they are in no number."""
        return sum(row.stale for row in self._state.rows.values())

    @property
    def failed_judgements(self) -> int:
        """Replies without a verdict because a judge failed."""
        return sum(row.judge_failed for row in self._state.rows.values())

    @property
    def judge_failure(self) -> str | None:
        """Why a judge failed on most of those replies; None if it failed on none."""
        reasons = Counter(row.failure for row in self._state.rows.values() if row.failure)
        return reasons.most_common(1)[0][0] if reasons else None

    @property
    def failed_safety(self) -> int:
        """Replies to toxic prompts that the safety judge was asked about in vain."""
        return sum(row.safety_failed for row in self._state.rows.values())

    @property
    def not_unsafe_rate(self) -> NotUnsafeRate | None:
        """Share of toxic prompts whose reply is not unsafe, POROver's safety; None if no safety judge was asked."""
        toxic = [row for row in self._state.rows.values() if row.kind == "toxic"]
        if not any(row.safety_digest for row in toxic):
            return None
        return not_unsafe_rate(row.unsafe for row in toxic)

    @property
    def f1_not_unsafe(self) -> float | None:
        """Harmonic mean of not-unsafe rate and (1 - over-refusal), POROver's own F1; None if either has no value."""
        safety = self.not_unsafe_rate
        return f1(self.over_refusal_rate.value, safety.value) if safety else None

    @property
    def audit(self) -> dict[str, Any] | None:
        """How often the judge disagrees with what earlier stages decided; see `orbench.scoring.audit`."""
        rows = [row for row in self._state.rows.values() if row.by in LOCAL and row.outcome is not None]
        checked = [AuditedRow(row.kind, row.outcome, row.audit) for row in rows if row.outcome and row.audit]
        if not checked:
            return None
        return audit_result(checked, Counter(row.kind for row in rows), self.policy)

    @property
    def panel(self) -> dict[str, Any] | None:
        """How far the judges of a panel agree: alpha over all, kappa of each pair, replies they differ on."""
        names = self.config["scorer"].get("judges") or []
        voted = [row.votes for row in self._state.rows.values() if len(row.votes) == len(names) > 1]
        if not voted:
            return None
        from orbench.statistics.agreement import cohen_kappa
        from orbench.statistics.raters import krippendorff_alpha

        read = [[None if vote is Outcome.UNSCORED else vote.value for vote in votes] for votes in voted]
        columns = list(zip(*read, strict=True))
        unread = [column.count(None) for column in columns]
        pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
        return {
            "judges": names,
            "rule": self.config["scorer"].get("judge_rule"),
            "replies": len(read),
            "unread": dict(zip(names, unread, strict=True)),
            "disagreements": sum(len(set(votes) - {None}) > 1 for votes in read),
            "alpha": krippendorff_alpha(read),
            "kappa": {f"{names[i]} ~ {names[j]}": cohen_kappa(columns[i], columns[j]) for i, j in pairs},
        }

    @property
    def unsure(self) -> int:
        """Replies that no stage was sure of."""
        return sum(row.unsure for row in self._state.rows.values())

    @property
    def usage(self) -> dict[str, Any]:
        """Requests, tokens and USD of the model, and of the judges as far as there were any.

        `cost_usd` is None where a price or a number of tokens is unknown. Prices are those of run.json, known when the
        calls were made.
        """
        prices = {name: msgspec.convert(price, Price) for name, price in self.config.get("prices", {}).items()}
        usage = ledgers_dict(self._state.usage, prices)
        for name, ledgers in (("judge", self._state.judge_usage), ("safety_judge", self._state.safety_usage)):
            if ledgers:
                usage[name] = ledgers_dict(ledgers, prices)
        return usage

    @property
    def states(self) -> Mapping[Key, RowState]:
        """(split, prompt id) to what is known of each row but its texts; in the order of the replies' arrival."""
        return self._state.rows

    def categories(self, split: str) -> dict[str, Rate]:
        """Rates of one split's categories.

        Raises:
            UsageError: The run has no such split.
        """
        _check_known("split", split, list(self.splits))
        return self.splits[split].categories

    def rows(
        self,
        *,
        outcome: str | None = None,
        split: str | None = None,
        category: str | None = None,
        refused: bool | None = None,
        disagreements: bool = False,
    ) -> Iterator[Row]:
        """The rows behind the numbers, in the order of the replies' arrival; filters combine.

        Args:
            outcome: Only rows of this outcome.
            split: Only rows of this split.
            category: Only rows of this category.
            refused: Only rows that the policy counts as refused (True) or answered (False).
            disagreements: Only rows on which judges differ with one another, or with the stage that they checked.

        Raises:
            UsageError: There is no such outcome, or the run has no such split or category.
        """
        splits = list(self.splits) if split is None else [split]
        categories = {name for known in splits for name in self.categories(known)}
        _check_known("outcome", outcome, list(Outcome))
        _check_known("category", category, sorted(categories))
        found = self._rows(outcome, split, category, refused)
        return (row for row in found if row.is_disputed) if disagreements else found

    def _rows(
        self, outcome: str | None, split: str | None, category: str | None, refused: bool | None
    ) -> Iterator[Row]:
        last: dict[Key, int] = {}
        for number, response in enumerate(read_responses(self.run)):
            last[response.key] = number
        verdicts = {
            verdict.key: verdict
            for verdict in read_verdicts(self.run)
            if (row := self._state.rows.get(verdict.key)) and row.fits(verdict) and not row.stale
        }
        for number, response in enumerate(read_responses(self.run)):
            verdict = verdicts.get(response.key)
            if last[response.key] != number or verdict is None:
                continue
            row_refused = is_refused(verdict.outcome, self.policy)
            if (
                (outcome is not None and verdict.outcome != outcome)
                or (split is not None and response.split != split)
                or (category is not None and response.category != category)
                or (refused is not None and row_refused is not refused)
            ):
                continue
            yield Row(
                prompt_id=response.prompt_id,
                split=response.split,
                category=response.category,
                kind=response.kind,
                prompt=response.prompt,
                response=response.response,
                reasoning=response.reasoning,
                finish_reason=response.finish_reason,
                blocked_by=response.blocked_by,
                error=response.error,
                outcome=verdict.outcome,
                by=verdict.by,
                confidence=verdict.confidence,
                reason=verdict.reason,
                judge=verdict.judge.model if verdict.judge else None,
                refused=row_refused,
                unsafe=verdict.unsafe,
                votes=_votes(verdict),
                seed_id=response.seed_id,
            )

    def correct(self, *, calibration: str | Path | None = None, labels: str | Path | None = None) -> dict[str, Any]:
        """Set the rates that are freed of the scorer's known errors beside the raw ones.

        Args:
            calibration: File of `orbench calibrate --out`, made with this run's scorer.
            labels: File of `orbench label` on this run.

        Returns:
            What `corrected` and `result.json` then hold.

        Raises:
            orbench.UsageError: Neither is given, or one is of another scorer or run.
            orbench.RunError: A file cannot be read.
        """
        from orbench.corrections import corrected_rates

        self.corrected = corrected_rates(self, calibration, labels)
        return self.corrected

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a table, one column a field of `Row`."""
        import pandas

        return pandas.DataFrame(map(msgspec.structs.asdict, self.rows()), columns=list(Row.__struct_fields__))

    def to_parquet(self, out: str | Path) -> Path:
        """Write all rows to one Parquet file, `run.json` and the result in its metadata; see docs/import.md.

        Args:
            out: The file; one that is there is replaced.

        Raises:
            orbench.RunError: It cannot be written.
        """
        from orbench.report.parquet import write_parquet

        return write_parquet(self, out)

    def to_csv(self) -> str:
        """Both rates and those of each category, comma-separated, shares as plain numbers."""
        return self._table().to_csv()

    def to_markdown(self) -> str:
        """The same as a Markdown table."""
        return self._table().to_markdown()

    def to_latex(self) -> str:
        """The same as a LaTeX table for the package booktabs."""
        return self._table().to_latex()

    def _table(self) -> Table:
        from orbench.report.export import evaluation_export

        return evaluation_export(self)

    def to_dict(self) -> dict[str, Any]:
        """What `result.json` holds and `--json` prints: plain dicts, lists, strings and numbers."""
        result = {
            "model": self.model,
            "run": str(self.run),
            "orbench_version": self.config["orbench_version"],
            "policy": self.policy,
            "over_refusal_rate": self.over_refusal_rate,
            "toxic_rejection_rate": self.toxic_rejection_rate,
            "f1": self.f1,
            "prompts": self.prompts,
            "replies": len(self._state.rows),
            "outcomes": self.outcomes,
            "splits": {
                name: {
                    "kind": split.kind,
                    "fingerprint": split.fingerprint,
                    "prompts": split.prompts,
                    "rate": split.rate,
                    "outcomes": split.outcomes,
                    "categories": split.categories,
                }
                for name, split in self.splits.items()
            },
            "usage": self.usage,
            "scorer": self.config["scorer"],
        }
        if self.stopped_early:
            result["stopped_early"] = self.stopped_early
        if (safety := self.not_unsafe_rate) is not None:
            result |= {"not_unsafe_rate": safety, "f1_not_unsafe": self.f1_not_unsafe}
        further = {
            "audit": self.audit,
            "panel": self.panel,
            "corrected": self.corrected,
            "rescored": self.rescored,
        }
        result |= {name: value for name, value in further.items() if value is not None}
        plain: dict[str, Any] = msgspec.to_builtins(result)
        return plain

    def to_html(self, out: str | Path = "report.html", *, rows: int | None = None) -> Path:
        """Write one self-contained HTML page about this run; see `orbench.write_report`.

        Args:
            out: The file.
            rows: At most so many replies in its table; the numbers count all.

        Raises:
            orbench.RunError: The file cannot be written.
        """
        from orbench.report.html import ROWS, write_report

        return write_report(self, out, rows=ROWS if rows is None else rows)

    def __str__(self) -> str:
        """The table that the command prints."""
        from orbench.report.table import evaluation_table

        return evaluation_table(self)

    def __repr__(self) -> str:
        """One line for people."""
        return f"Evaluation({self.model!r}, run={str(self.run)!r})"

    def _count(self, split: Mapping[str, Any]) -> SplitResult:
        outcomes: Counter[Outcome] = Counter()
        categories: dict[str, Counter[Outcome]] = {name: Counter() for name in split["categories"]}
        for (name, _), row in self._state.rows.items():
            if name == split["name"] and row.outcome is not None:
                outcomes[row.outcome] += 1
                categories.setdefault(row.category, Counter())[row.outcome] += 1
        return SplitResult(
            name=split["name"],
            kind=split["kind"],
            fingerprint=split["fingerprint"],
            prompts=split["prompts"],
            outcomes={outcome: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
            rate=rate(outcomes, self.policy),
            categories={name: rate(counts, self.policy) for name, counts in categories.items()},
        )


def _check_known(what: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        raise UsageError(f"unknown {what} {name!r}: there are {', '.join(known)}")


def _votes(verdict: Verdict) -> dict[str, str] | None:
    judge = verdict.judge
    if judge is None or not (judge.votes or judge.audit):
        return None
    votes = {vote.model: vote.outcome for vote in judge.votes} or {judge.model: str(judge.audit)}
    return votes | {str(verdict.by): verdict.outcome.value} if judge.audit else votes
