"""`orbench calibrate` and `orbench label`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.cli.output import plain
from orbench.errors import UsageError

if TYPE_CHECKING:
    from orbench.calibration import Calibration
    from orbench.labels import Labels


def calibrate(
    labels: Annotated[Path, typer.Option("--labels", metavar="FILE", help="CSV or JSONL with response and label.")],
    scorer: options.ScorerOption = "cascade",
    judge: options.JudgeOption = None,
    judge_template: options.JudgeTemplateOption = "three-classes",
    judge_rule: options.JudgeRule = "majority",
    family: options.Family = None,
    phrases: options.Phrases = None,
    judge_base_url: options.JudgeBaseUrl = None,
    base_url: options.BaseUrl = None,
    engine: options.Engine = None,
    engine_option: options.EngineOption = None,
    ray_address: options.RayAddress = None,
    workers: options.Workers = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Save it for --calibration.")] = None,
    show: Annotated[bool, typer.Option("--show", help="List the replies that went wrong with their text.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a scorer or judge against labels by people."""
    from orbench.calibration import calibrate as run
    from orbench.engine.run_folder import refuse_folder
    from orbench.labels import load_labels

    loaded = load_labels(labels)
    if out is not None:
        refuse_folder(out)
    found = run(
        loaded,
        scorer,
        judge=judge,
        judge_template=judge_template,
        judge_rule=judge_rule,
        family=family,
        phrases=phrases,
        base_url=judge_base_url or base_url,
        model_options={
            "engine": options.engine_options(engine_option),
            "ray": options.ray_options(engine, ray_address, workers),
        },
    )
    if out is not None:
        found.save(out)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
    elif not quiet:
        _tell(found, loaded, show)
        if out is not None:
            typer.echo(f"\nsaved in {plain(str(out))}")
    raise typer.Exit(3 if found.failed else 0)


def _tell(found: Calibration, loaded: Labels, show: bool) -> None:
    from orbench.report.table import shorten

    typer.echo("\n".join(plain(line) for line in str(found).split("\n")))
    wrong = set(found.wrong)
    if wrong:
        typer.echo(f"\nwent wrong: {len(wrong):,}")
        if not show:
            typer.echo("  " + plain(", ".join(found.wrong[:20])) + (" ..." if len(found.wrong) > 20 else ""))
            typer.echo("  --show lists all with their text")
        for row in loaded.rows if show else ():
            if row.id in wrong:
                typer.echo(plain(f"{row.id}  labelled {row.label}"))
                typer.echo(f"  > {plain(shorten(row.prompt, 300))}")
                typer.echo(f"  < {plain(shorten(row.response, 600))}")


def label(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    n: Annotated[int, typer.Option("--n", metavar="N", help="Replies to label.")] = 100,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="CSV file; gone on with if it is there.")] = Path(
        "labels.csv"
    ),
    seed: options.Seed = 0,
) -> None:
    """Label replies of a run by hand, one key each; the file feeds `calibrate` and the correction."""
    from orbench.labelling import HELP, label_run
    from orbench.results import Evaluation

    result = Evaluation.load(run)
    typer.echo(HELP)
    label_run(result, out, n=n, seed=seed, keys=_keys(), write=lambda line: typer.echo(plain(line)))


def _keys() -> Iterator[str]:
    """One key a piece: as typed on a terminal, else the first character of each line (an empty line is a space).

    Raises:
        UsageError: There is no terminal and not one line.
    """
    if sys.stdin.isatty():
        while True:
            key = typer.getchar()
            if key in ("\x03", "\x04", ""):
                return
            yield key.lower()
    line = None
    for line in sys.stdin:
        yield line[:1].lower() if line.strip("\r\n") else " "
    if line is None:
        raise UsageError("nothing was labelled: label needs a terminal, or standard input with one key a line")
