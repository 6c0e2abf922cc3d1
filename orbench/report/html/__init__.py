"""One self-contained HTML page about one run or several: `write_report`.

The page asks for no address, runs no script but its own (its security policy names that script by hash), and shows
every prompt and reply as text. All numbers are in the page without the script; the script only serves the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orbench.engine.run_folder import refuse_folder
from orbench.errors import RunError, UsageError
from orbench.report.html.rows import ROWS
from orbench.results import Evaluation

__all__ = ["ROWS", "write_report"]


def write_report(
    runs: Evaluation | str | Path | Sequence[Evaluation | str | Path],
    out: str | Path = "report.html",
    *,
    policy: str | None = None,
    rows: int = ROWS,
) -> Path:
    """Write one self-contained HTML page about one run or several.

    Args:
        runs: Results or run folders, finished or not.
        out: The file; replaced whole or not at all.
        policy: Read all runs under this policy; by default each under its own, which must then be the same.
        rows: At most so many replies in the page's table, those of most interest first; the numbers count all.

    Returns:
        The file's path.

    Raises:
        UsageError: No run, the same run twice, runs under different policies, or an impossible number of rows.
        orbench.RunError: No run folder, a damaged one, or the file cannot be written.
    """
    from orbench.report.html.page import render

    given = [runs] if isinstance(runs, (Evaluation, str, Path)) else list(runs)
    if not given:
        raise UsageError("report needs at least one run")
    if rows < 1:
        raise UsageError(f"rows is {rows}: at least 1")
    path = Path(out)
    refuse_folder(path)
    results = [_open(run, policy) for run in given]
    folders = [result.run.resolve() for result in results]
    twice = next((folder for n, folder in enumerate(folders) if folder in folders[:n]), None)
    if twice:
        raise UsageError(f"{twice} was given twice: name each run once")
    policies = sorted({result.policy for result in results})
    if len(policies) > 1:
        raise UsageError(
            f"the runs are read under different policies ({', '.join(policies)}): add --policy {policies[0]} to read "
            "all alike; it needs no call"
        )
    part = path.with_name(path.name + ".part")
    page = render(results, rows)
    try:
        part.write_bytes(page)
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another --out") from None
    return path


def _open(run: Evaluation | str | Path, policy: str | None) -> Evaluation:
    if isinstance(run, Evaluation):
        return run.with_policy(policy) if policy and policy != run.policy else run
    return Evaluation.load(run, policy)
