"""Where names stand in a crowded picture: beside their mark, on nothing else.

adjustText, which pushes names apart by forces, left names on other names and on marks at 36 models, and took three
seconds. Here each name has some 170 places to choose from, and names change places, one at a time, while any
gains by it. Boxes are (left, bottom, right, top), all lengths in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_ANGLES = 24
_DISTANCES = (0.0, 8.0, 18.0, 32.0, 50.0, 75.0, 105.0)
_ON_NAME, _ON_MARK, _ON_LINE, _CROSSING, _FAR = 40.0, 25.0, 2.0, 6.0, 0.045
_AMBIGUOUS, _OVER_MARK = 5.0, 5.0
_SWEEPS, _STARTS = 60, 3


def place(
    marks: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: tuple[float, float, float, float],
    *,
    reach: float,
    line: Sequence[tuple[float, float]] = (),
    taken: Sequence[tuple[float, float, float, float]] = (),
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Choose a place for each name.

    Args:
        marks: Middle of each mark.
        sizes: Width and height of each name.
        frame: Box that no name leaves.
        reach: Half the width of a mark.
        line: Points of a curve that names had better not cover.
        taken: Boxes where no name may stand.
        seed: Seed of the orders in which names change places.

    Returns:
        The middle of each name; near ones first, then as far away as they must.
    """
    import numpy as np

    if not marks:
        return []
    points = np.asarray(marks, float)
    middles = np.stack([_places(point, size, reach) for point, size in zip(points, np.asarray(sizes), strict=True)])
    half = np.asarray(sizes, float)[:, None, :] / 2 + 1.5
    boxes = np.concatenate([middles - half, middles + half], axis=2)  # names x places x 4
    near = np.clip(points[:, None], boxes[..., :2], boxes[..., 2:])  # where the line from the mark ends
    alone = _alone(points, near, boxes, np.asarray(frame, float), reach, np.asarray(line, float).reshape(-1, 2), taken)
    random = np.random.default_rng(seed)
    best, least = np.zeros(len(marks), int), math.inf
    for _ in range(_STARTS):
        chosen, cost = _settle(points, near, boxes, alone, random)
        if cost < least:
            best, least = chosen, cost
    return [(float(x), float(y)) for x, y in middles[np.arange(len(marks)), best]]


def _places(mark: Floats, size: Floats, reach: float) -> Floats:
    """Middles of a name all around its mark, at growing distances; the first are the nearest."""
    import numpy as np

    found = []
    for distance in _DISTANCES:
        for number in range(_ANGLES):
            angle = 2 * math.pi * number / _ANGLES
            x, y = math.cos(angle), math.sin(angle)
            # How far the middle must be for the name's edge to lie at the distance, in this direction.
            edge = min(size[0] / 2 / max(abs(x), 1e-9), size[1] / 2 / max(abs(y), 1e-9))
            far = edge + reach + 2 + distance
            found.append((mark[0] + x * far, mark[1] + y * far))
    return np.array(found)


def _alone(
    points: Floats, near: Floats, boxes: Floats, frame: Floats, reach: float, line: Floats, taken: Sequence[object]
) -> Floats:
    """What each place costs whatever the other names do: names x places."""
    import numpy as np

    distance = np.repeat(_DISTANCES, _ANGLES) * _FAR
    cost = np.broadcast_to(distance, boxes.shape[:2]).copy()
    marks = np.concatenate([points - reach, points + reach], axis=1)
    cost += _ON_MARK * _meet(boxes[:, :, None], marks[None, None]).sum(2)
    cost += _misleading(points, near, boxes, reach)
    if len(line):
        cost += _ON_LINE * _meet(boxes[:, :, None], np.concatenate([line, line], axis=1)[None, None]).any(2)
    if len(taken):
        cost += _ON_NAME * _meet(boxes[:, :, None], np.asarray(taken, float)[None, None]).sum(2)
    outside = (boxes[..., :2] < frame[:2]).any(2) | (boxes[..., 2:] > frame[2:]).any(2)
    return np.asarray(cost + 1000.0 * outside)


def _misleading(points: Floats, near: Floats, boxes: Floats, reach: float) -> Floats:
    """A name not twice as near to its own mark as to another, or whose line runs over another: names x places."""
    import numpy as np

    count = len(points)
    # From each box to the nearest point of it, as seen from each mark: names x places x marks.
    gap = np.maximum(boxes[:, :, None, :2] - points, points - boxes[:, :, None, 2:]).clip(0)
    distance = np.hypot(gap[..., 0], gap[..., 1])
    own = distance[np.arange(count), :, np.arange(count)]
    theirs = np.where(np.eye(count, dtype=bool)[:, None], np.inf, distance)
    cost = _AMBIGUOUS * (theirs < np.minimum(2 * own, 4 * reach)[..., None]).sum(2)
    marks = np.concatenate([points - reach, points + reach], axis=1)
    for step in np.linspace(0.1, 1, 12):
        on_line = points[:, None] + step * (near - points[:, None])
        hit = _inside(on_line[:, :, None], marks[None, None])
        hit[np.arange(count), :, np.arange(count)] = False
        cost = cost + _OVER_MARK * hit.sum(2)
    return np.asarray(cost)


def _settle(
    points: Floats, near: Floats, boxes: Floats, alone: Floats, random: np.random.Generator
) -> tuple[NDArray[np.int64], float]:
    """Names change places in random order until none gains by it."""
    count = len(points)
    chosen = alone.argmin(1)
    for _ in range(_SWEEPS):
        moved = False
        for name in random.permutation(count):
            costs = _costs(int(name), chosen, points, near, boxes, alone)
            new = int(costs.argmin())
            if costs[new] < costs[chosen[name]] - 1e-9:
                chosen[name], moved = new, True
        if not moved:
            break
    total = sum(float(_costs(n, chosen, points, near, boxes, alone)[chosen[n]]) for n in range(count))
    return chosen, total


def _costs(name: int, chosen: NDArray[np.int64], points: Floats, near: Floats, boxes: Floats, alone: Floats) -> Floats:
    """What each place of one name costs while the others stay."""
    import numpy as np

    others = np.flatnonzero(np.arange(len(points)) != name)
    theirs = boxes[others, chosen[others]]
    costs = alone[name] + _ON_NAME * _meet(boxes[name][:, None], theirs[None]).sum(1)
    steps = np.linspace(0.15, 1, 8)[:, None]
    own = points[name] + steps * (near[name][:, None] - points[name])  # places x steps x 2
    costs = costs + _CROSSING * _inside(own[:, None], theirs[None, :, None]).any(2).sum(1)
    leaders = points[others, None] + steps * (near[others, chosen[others]] - points[others])[:, None]
    return np.asarray(costs + _CROSSING * _inside(leaders[None], boxes[name][:, None, None]).any(2).sum(1))


def _meet(a: Floats, b: Floats) -> NDArray[np.bool_]:
    return (a[..., 0] < b[..., 2]) & (b[..., 0] < a[..., 2]) & (a[..., 1] < b[..., 3]) & (b[..., 1] < a[..., 3])


def _inside(points: Floats, boxes: Floats) -> NDArray[np.bool_]:
    x, y = points[..., 0], points[..., 1]
    return (x > boxes[..., 0]) & (x < boxes[..., 2]) & (y > boxes[..., 1]) & (y < boxes[..., 3])
