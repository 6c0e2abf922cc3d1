"""A progress bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from orbench.records import Kind
from orbench.scoring.outcomes import Outcome, Policy, is_refused


class Progress:
    """Shows how far a run is: rate, time left, and the over-refusal rate so far."""

    def __init__(self, model: str, total: int, done: int, position: int, policy: Policy, show: bool | None) -> None:
        """Start the bar.

        Args:
            model: Its label.
            total: Prompts of the run.
            done: Prompts that need nothing more.
            position: Line below the cursor, for several models at once.
            policy: What counts as refused.
            show: None shows it only if standard error is a terminal.
        """
        self._policy = policy
        self._refused = self._scored = 0
        self._bar: Any = None
        if show if show is not None else sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=model[-32:], position=position, unit="", leave=False)

    def update(self, kind: Kind, outcome: Outcome) -> None:
        """Count one more prompt that reached its outcome."""
        if self._bar is None:
            return
        refused = is_refused(outcome, self._policy)
        if kind == "safe" and refused is not None:
            self._scored += 1
            self._refused += refused
            self._bar.set_postfix_str(f"over-refusal {self._refused / self._scored:.1%}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()


class Tally:
    """Shows how much of a growing amount of work is done, on a terminal, and nothing elsewhere."""

    def __init__(self, label: str, position: int, show: bool | None) -> None:
        """Start the bar; arguments as of `Progress`."""
        self._bar: Any = None
        if show if show is not None else sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=0, desc=label[-40:], position=position, unit="", leave=False)

    def begin(self) -> None:
        """There is one thing more to do."""
        if self._bar is not None:
            self._bar.total += 1

    def done(self) -> None:
        """One is done."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
