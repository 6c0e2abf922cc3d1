"""What all pictures share: matplotlib without a screen, colours for every eye, files of three kinds."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbench.errors import MissingExtraError, OrbenchError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

# P. Tol, "Colour schemes" (SRON/EPS/TN/09-002), scheme muted without its palest, and black: told apart with every
# kind of colour-blindness. Marks differ too, so that nothing hangs on colour alone.
COLOURS = ("#332288", "#CC6677", "#117733", "#56B4E9", "#999933", "#882255", "#44AA99", "#D55E00", "#AA4499", "#222222")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*")
INK = "#222222"
FAINT = "#777777"


def require(path: Path | None = None) -> None:
    """Check beforehand that a picture can be drawn, and that the file's name says how.

    Raises:
        MissingExtraError: The extra `plot` is not installed.
        UsageError: The name ends in none of `SUFFIXES`.
    """
    if path is not None:
        check_suffix(path)
    if not importlib.util.find_spec("matplotlib"):
        raise MissingExtraError("drawing a picture", "plot")


def check_suffix(path: Path) -> None:
    """Raise UsageError where the file's name does not say how to draw."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a picture ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def canvas(width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure, in inches, and its axes; nothing global is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**grid)


def tidy(axes: Axes) -> None:
    """Fewer lines: no box, a faint grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def style(names: Sequence[str], first: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """Colour and mark of each name; marks shift where the colours begin again.

    Args:
        names: What is drawn.
        first: Names that look the same in every picture, drawn or not.
    """
    others = sorted({*names} - {*first}, key=str.lower)
    found = {}
    for number, name in enumerate([*first, *others]):
        if name in names:
            turn = number // len(COLOURS)
            found[name] = (COLOURS[number % len(COLOURS)], MARKS[(number + turn) % len(MARKS)])
    return found


def save(figure: Figure, path: Path) -> Path:
    """Write the picture, the same bytes for the same figure.

    Raises:
        OrbenchError: It cannot be written.
    """
    import matplotlib as mpl

    extra: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if path.suffix.lower() == ".png" else {}
    metadata: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with mpl.rc_context({"svg.hashsalt": "orbench", "svg.fonttype": "none", "pdf.fonttype": 42}):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=120, metadata=metadata[path.suffix.lower()], **extra)
        except OSError as error:
            raise OrbenchError(f"{path}: cannot be written: {error.strerror}") from None
    return path
