"""`orbench push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of orbench generate.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Dataset repository; made if need be.")],
    license: Annotated[  # noqa: A002 - the Hub's word for it
        str | None,
        typer.Option("--license", metavar="ID", help="The Hub's identifier, such as cc-by-4.0; default: the card's."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; it is private by default.")
    ] = False,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Address of the Hub; default HF_ENDPOINT.")
    ] = None,
) -> None:
    """Push the splits of a generation and its card to the Hub, in one commit. The token comes from HF_TOKEN."""
    from orbench.generation.push import push as push_folder

    typer.echo(push_folder(folder, repository, license=license, private=not public, endpoint=endpoint))
