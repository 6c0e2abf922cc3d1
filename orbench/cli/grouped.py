"""Commands with many options: their help shows them in groups."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

GROUPS = {
    "Prompts": "--split --data --revision --column --limit --shard --precision --seed",
    "Conditions": "--temperature --system-prompt --defense --repeat --grid",
    "Scoring": "--scorer --judge --judge-template --judge-rule --safety-judge --audit --calibration --labels --family "
    "--phrases --policy",
    "Model and service": "--max-tokens --base-url --judge-base-url --api --google-sdk --google-safety --timeout "
    "--engine --engine-option --ray-address --workers",
    "Pace and money": "--concurrency --rpm --tpm --batch --dry-run --max-cost --prices",
    "Output": "--out --format --unstable --plot --json --quiet",
}
"""Heading to options; a command shows of them what it has, and what stands nowhere under `Options`."""


class GroupedCommand(TyperCommand):
    """A command whose options stand in groups in its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups one after the other."""
        headings = {option: heading for heading, options in GROUPS.items() for option in options.split()}
        found: dict[str, list[Any]] = {heading: [] for heading in ("Arguments", *GROUPS, "Options")}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                other = "Arguments" if parameter.param_type_name == "argument" else "Options"
                found[headings.get(parameter.opts[0], other)].append(record)
        for heading, records in found.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
