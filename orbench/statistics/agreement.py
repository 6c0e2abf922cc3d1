"""How far two readers of the same replies agree: Cohen's kappa with its interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import msgspec

from orbench.statistics.intervals import Z95, wilson


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two readers' decisions (refused or not) on the replies that both decided."""

    both_refused: int
    only_first: int
    """Refused by the first reader's reading only."""
    only_second: int
    neither: int

    @property
    def replies(self) -> int:
        """Replies that both decided."""
        return self.both_refused + self.only_first + self.only_second + self.neither

    @property
    def share(self) -> float | None:
        """Share of them read alike, 0 to 1; None if there is none."""
        return (self.both_refused + self.neither) / self.replies if self.replies else None

    @property
    def share_interval(self) -> tuple[float, float] | None:
        """Its 95 % Wilson interval."""
        return wilson(self.both_refused + self.neither, self.replies) if self.replies else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance, at most 1; None where both readers gave one and the same answer throughout.

        Source:
            J. Cohen, Educ. Psychol. Meas. 20 (1960) 37.
        """
        return _kappa(
            {
                (True, True): self.both_refused,
                (True, False): self.only_first,
                (False, True): self.only_second,
                (False, False): self.neither,
            }
        )

    @property
    def kappa_interval(self) -> tuple[float, float] | None:
        """Its 95 % interval for large numbers, kept within -1 and 1.

        None where there is no kappa, and where the formula gives no width, as if nothing were left to chance: where the
        readers agree on everything or on nothing, or one of them gave the same answer throughout.

        Source:
            J. Fleiss, J. Cohen, B. Everitt, Psychol. Bull. 72 (1969) 323.
        """
        kappa = self.kappa
        settled = (
            self.both_refused + self.neither,
            self.both_refused + self.only_first,
            self.both_refused + self.only_second,
        )
        if kappa is None or any(count in (0, self.replies) for count in settled):
            return None
        n, chance = self.replies, self._chance
        cells = ((self.both_refused / n, self.only_first / n), (self.only_second / n, self.neither / n))
        rows = [sum(row) for row in cells]
        columns = [cells[0][i] + cells[1][i] for i in (0, 1)]
        same = sum(cells[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
        other = (1 - kappa) ** 2 * sum(cells[i][1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
        variance = (same + other - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
        half = Z95 * math.sqrt(max(0.0, variance))
        return max(-1.0, kappa - half), min(1.0, kappa + half)

    @property
    def _chance(self) -> float:
        n = self.replies
        first, second = self.both_refused + self.only_first, self.both_refused + self.only_second
        return (first * second + (n - first) * (n - second)) / (n * n)


def cohen_kappa(first: Sequence[Hashable | None], second: Sequence[Hashable | None]) -> float | None:
    """Cohen's kappa of two readers for labels without an order, over what both labelled.

    Returns:
        At most 1; None where nothing was labelled by both, or chance alone would agree always.

    Source:
        J. Cohen, Educ. Psychol. Meas. 20 (1960) 37.
    """
    return _kappa(Counter((a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None))


def _kappa(counts: Mapping[tuple[Hashable, Hashable], int]) -> float | None:
    """From how often which two labels met."""
    ones, others = Counter[Hashable](), Counter[Hashable]()
    for (one, other), count in counts.items():
        ones[one] += count
        others[other] += count
    n = ones.total()
    alike = sum(count for (one, other), count in counts.items() if one == other)
    chance = sum(times * others[label] for label, times in ones.items())
    return None if chance == n * n else (alike * n - chance) / (n * n - chance)
