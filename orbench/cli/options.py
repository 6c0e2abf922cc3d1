"""Options that mean the same in every command; their words and defaults stand here once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from orbench.errors import UsageError

if TYPE_CHECKING:
    from orbench.report.export import Table

Splits = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="NAME|PATH",
        help="hard-1k, toxic, 80k, sample, a file with a kind column, or safe=FILE / toxic=FILE; repeatable. "
        "Default: hard-1k and toxic.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the named splits; else ORBENCH_DATA_DIR, else the Hub."),
]
Revision = Annotated[str | None, typer.Option("--revision", metavar="REV", help="Revision of the Hub data set.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="NAME=THEIRS", help="Such as prompt=question, where a file's columns have other names."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", help="Prompts of each split: a seeded sample in proportion to categories."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="K/N", help="Only the K-th of N parts of the prompts; `orbench merge` joins them."),
]
Precision = Annotated[
    float | None,
    typer.Option("--precision", metavar="W", help="Stop when both rates are known to within W, such as 0.02."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of samples and of sampling models.")]
ScorerOption = Annotated[
    str, typer.Option("--scorer", metavar="NAME", help="cascade, keywords, judge, paper or hf/PATH.")
]
AnyScorer = Annotated[
    str | None, typer.Option("--scorer", metavar="NAME", help="cascade (default), keywords, judge, paper or hf/PATH.")
]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option("--judge", metavar="MODEL", help="Model that reads what the scorer leaves to it; several: a panel."),
]
JudgeTemplateOption = Annotated[
    str,
    typer.Option(
        "--judge-template", metavar="NAME", help="three-classes or two-classes; with -brief, no reasons; FILE.jinja."
    ),
]
JudgeRule = Annotated[str, typer.Option("--judge-rule", metavar="NAME", help="Of a panel: majority or unanimous.")]
SafetyJudge = Annotated[
    str | None,
    typer.Option("--safety-judge", metavar="MODEL", help="Says whether replies to toxic prompts are unsafe."),
]
Audit = Annotated[
    float,
    typer.Option("--audit", metavar="SHARE", help="Of what earlier stages decided, checked by the judge, at least 50."),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="FILE", help="Of orbench calibrate --out: adds corrected rates."),
]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", metavar="FILE", help="Of orbench label on this run: adds corrected rates.")
]
Phrases = Annotated[
    Path | None,
    typer.Option("--phrases", metavar="FILE", help="Your own refusal phrases, one a line, for cascade and keywords."),
]
Family = Annotated[str | None, typer.Option("--family", metavar="NAME", help="Family of phrases for --scorer paper.")]
PolicyOption = Annotated[
    str | None,
    typer.Option("--policy", metavar="NAME", help="What counts as refused: default, strict or paper."),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="Address of the models, and of a judge of theirs.")
]
JudgeBaseUrl = Annotated[str | None, typer.Option("--judge-base-url", metavar="URL", help="Address of the judge.")]
Temperature = Annotated[float, typer.Option("--temperature", metavar="T", help="0 (greedy) to 2.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", metavar="N", help="Longest reply in tokens.")]
SystemPrompt = Annotated[
    str | None, typer.Option("--system-prompt", metavar="TEXT|@FILE", help="Sent before each prompt; default none.")
]
Api = Annotated[
    str | None,
    typer.Option(
        "--api",
        metavar="NAME",
        help="chat or responses, for OpenAI-compatible services; default: chat, or what the model needs.",
    ),
]
GoogleSdk = Annotated[
    str | None,
    typer.Option(
        "--google-sdk", metavar="NAME", help="genai (default) or legacy (google-generativeai; support has ended)."
    ),
]
GoogleSafety = Annotated[
    str | None,
    typer.Option(
        "--google-safety", metavar="NAME", help="block-none (default, as in the paper) or vendor: Gemini's filters."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", help="Seconds after which one call is given up; default 300."),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option", metavar="KEY=VALUE", help="For hf and vllm models, such as dtype=bfloat16; repeatable."
    ),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", metavar="NAME", help="ray: hf and vllm models on many workers; default: this process."),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", metavar="ADDRESS", help="Of a running cluster; default: RAY_ADDRESS, else started."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Of --engine ray; default: one a GPU, without GPUs one a machine."),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", metavar="N", help="Calls open at once, each model; default: found while running."),
]
Rpm = Annotated[
    float | None,
    typer.Option("--rpm", metavar="N", help="Requests a minute at most, each model by itself, judges too."),
]
Tpm = Annotated[
    float | None, typer.Option("--tpm", metavar="N", help="Tokens a minute at most, sent and received, likewise.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print prompts, tokens and cost, low to high; send and write nothing.")
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", metavar="USD", help="Stop before more is spent, judges and earlier runs included."),
]
Prices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="CSV: model,input,output in USD per million tokens."),
]
Batch = Annotated[
    bool,
    typer.Option("--batch", help="Through OpenAI's or Anthropic's batch API: half the price, done within a day."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder; for several models the folder of their run folders."),
]
Json = Annotated[bool, typer.Option("--json", help="Standard output carries JSON alone, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No table, no progress; errors and warnings still show.")]

Format = Annotated[
    str, typer.Option("--format", metavar="NAME", help="text, or for other programs csv, markdown or latex.")
]


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` of a repeated option as a dictionary.

    Raises:
        UsageError: Not of that form, or a name given twice.
    """
    found: dict[str, str] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {one}: write NAME=VALUE")
        if name in found:
            raise UsageError(f"{option} {one}: {name} was given before as {found[name]}")
        found[name] = value
    return found


def export(table: Table, format: str) -> str:
    """A table in the format of `--format`.

    Raises:
        UsageError: No such format.
    """
    formats = {"csv": table.to_csv, "markdown": table.to_markdown, "latex": table.to_latex}
    if format not in formats:
        raise UsageError(f"unknown format {format!r}: choose text, {', '.join(formats)}")
    return formats[format]()


def engine_options(given: list[str] | None) -> dict[str, Any] | None:
    """`KEY=VALUE` each, the value as JSON where it is some, else as text.

    Raises:
        UsageError: Not of that form, or a key twice.
    """
    found: dict[str, Any] = {}
    for each in given or ():
        key, equals, value = each.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--engine-option {each!r}: write KEY=VALUE, such as dtype=bfloat16")
        if key in found:
            raise UsageError(f"--engine-option {key} is given twice")
        try:
            found[key] = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError):
            found[key] = value
    return found or None


def ray_options(engine: str | None, address: str | None, workers: int | None) -> dict[str, Any] | None:
    """What `--engine`, `--ray-address` and `--workers` say together; None for this process.

    Raises:
        UsageError: No such engine, or options of Ray without it.
    """
    if engine not in (None, "local", "ray"):
        raise UsageError(f"--engine is {engine!r}: local or ray")
    if engine != "ray":
        if address is not None or workers is not None:
            raise UsageError("--ray-address and --workers are for --engine ray")
        return None
    return {"address": address, "workers": workers}


def text_or_file(value: str | None) -> str | None:
    """The text itself, or the contents of the file for `@FILE`.

    Raises:
        UsageError: The file cannot be read, or holds nothing.
    """
    if value is None or not value.startswith("@"):
        return value
    try:
        text = Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{value}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{value}: not text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise UsageError(f"{value}: the file is empty")
    return text
