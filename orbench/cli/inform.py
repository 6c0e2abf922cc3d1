"""Commands that only tell: `show`, `splits`, `models`, `doctor`, `path`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.cli.output import exit_code, plain, print_results
from orbench.errors import TemplateError, UsageError


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    refusals: Annotated[bool, typer.Option("--refusals", help="List the rows that count as refused.")] = False,
    answers: Annotated[bool, typer.Option("--answers", help="List the rows that count as answered.")] = False,
    category: Annotated[str | None, typer.Option("--category", metavar="NAME", help="List this category.")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", metavar="NAME", help="List this outcome.")] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="List this split.")] = None,
    disagreements: Annotated[
        bool, typer.Option("--disagreements", help="List the rows on which judges differ.")
    ] = False,
    calibration: options.CalibrationOption = None,
    labels: options.LabelsOption = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Grouped and joint intervals, and which categories stand out.")
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write every row to a Parquet file, too.")
    ] = None,
    policy: options.PolicyOption = None,
    format: options.Format = "text",
    json: options.Json = False,
) -> None:
    """Print a run's result again from its folder, or the rows behind the numbers."""
    from orbench.report.table import shorten
    from orbench.results import Evaluation

    result = Evaluation.load(run, policy)
    if refusals and answers:
        raise UsageError("--refusals and --answers exclude each other")
    if calibration or labels:
        result.correct(calibration=calibration, labels=labels)
    if parquet:
        result.to_parquet(parquet)
    if statistics:
        from orbench.summary import summarise

        summary = summarise(result)
        typer.echo(msgspec.json.encode(summary.to_dict()).decode() if json else str(summary))
        raise typer.Exit(exit_code([result]))
    if format != "text":
        from orbench.report.export import evaluation_export

        typer.echo(options.export(evaluation_export(result), format), nl=False)
        raise typer.Exit(exit_code([result]))
    if not (refusals or answers or category or outcome or split or disagreements):
        print_results([result], json=json, quiet=False)
        raise typer.Exit(exit_code([result]))
    refused = True if refusals else False if answers else None
    for row in result.rows(
        outcome=outcome, category=category, refused=refused, split=split, disagreements=disagreements
    ):
        if json:
            typer.echo(msgspec.json.encode(row).decode())
        else:
            why = f"{row.by or 'nobody'}: {row.reason}" if row.reason else row.by or "nobody"
            typer.echo(plain(f"{row.split}  {row.category}  {row.outcome}  ({why})"))
            if disagreements and row.votes:
                typer.echo(plain("  " + ", ".join(f"{judge}: {vote}" for judge, vote in row.votes.items())))
            typer.echo(f"  > {plain(shorten(row.prompt, 300))}")
            typer.echo(f"  < {plain(shorten(row.error or row.response, 600))}")


def splits(data: options.Data = None, json: options.Json = False) -> None:
    """List what can be evaluated by name, and where it would come from."""
    from orbench.report.table import columns
    from orbench.splits import available_splits

    found = available_splits(data)
    if json:
        for split in found:
            typer.echo(msgspec.json.encode(split).decode())
        return
    rows = [["split", "kind", "prompts", "from"]]
    rows += [
        [s.name, " + ".join(s.kinds), f"{s.rows:,}" if s.rows is not None else "?", s.source or "not in --data"]
        for s in found
    ]
    typer.echo("\n".join(columns(rows)))
    typer.echo("Your own file: --split safe=FILE.csv or --split toxic=FILE.csv (column prompt; .jsonl, .parquet too)")


def models(json: options.Json = False) -> None:
    """List the providers: which are installed and which have a key (never the key)."""
    from orbench.models import PROVIDERS, has_key, is_installed
    from orbench.models.baseline import BASELINES
    from orbench.report.table import columns

    rows = [["model", "installed", "key"]]
    for provider in PROVIDERS.values():
        installed = all(is_installed(module) for module in provider.needs)
        key = has_key(provider)
        names = [f"baseline/{name}" for name in BASELINES] if provider.name == "baseline" else [provider.example]
        if json:
            fields = {"provider": provider.name, "model": provider.example, "installed": installed}
            variable = provider.key_variables[0] if provider.key_variables else None
            fields |= {"extra": provider.extra, "key_variable": variable, "key_set": key}
            typer.echo(msgspec.json.encode(fields).decode())
            continue
        missing = f"no: pip install 'orbench[{provider.extra}]'" if provider.extra else "no"
        told = "needs none" if key is None else f"{' or '.join(provider.key_variables)} is {'' if key else 'not '}set"
        if key is False and not provider.needs_key:
            told += ", and need not be"
        rows += [[name, "yes" if installed else missing, told] for name in names]
    if not json:
        typer.echo("\n".join(columns(rows)))


def doctor(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Models to send one short question each.")
    ] = None,
    data: options.Data = None,
    base_url: options.BaseUrl = None,
    json: options.Json = False,
) -> None:
    """Say what is wrong with this set-up, and what to do; a named model gets one short question.

    Exit code 1 if there is a problem.
    """
    from orbench.doctor import examine

    found = examine(models or (), data=data, base_url=base_url)
    signs = {"ok": "ok", "note": "--", "problem": "!!"}
    problems = [finding.what for finding in found if finding.status == "problem"]
    if not json:
        if problems:
            typer.echo(plain(f"{len(problems)} to put right, marked !! below: {', '.join(problems)}"))
        else:
            typer.echo("Nothing is wrong. What is marked -- is missing only for what it names.")
    for finding in found:
        if json:
            typer.echo(msgspec.json.encode(finding).decode())
            continue
        typer.echo(plain(f"{signs[finding.status]}  {finding.what}: {finding.found}"))
        if finding.advice and finding.status != "ok":
            typer.echo(plain(f"      {finding.advice}"))
    raise typer.Exit(bool(problems))


def path(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="prompts, sample, prices, lm-eval, or a template's name.")
    ],
) -> None:
    """Print where a shipped file lies."""
    from orbench import integrations, templates
    from orbench import splits as split_package
    from orbench.costs import PRICES

    places = {
        "lm-eval": Path(integrations.__file__).with_name("lm_eval"),
        "prices": PRICES,
        "prompts": templates.folder(),
        "sample": Path(split_package.__file__).with_name("sample.csv"),
    }
    try:
        typer.echo(places.get(name) or templates.path(name))
    except TemplateError:
        known = ", ".join([*places, *templates.names()])
        raise UsageError(f"nothing shipped is called {name!r}: there are {known}") from None
