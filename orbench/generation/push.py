"""A generated folder to the Hugging Face Hub: its splits, its card, and how it was made, in one commit.

In: the folder of a generation. Out: a dataset repository whose configurations `datasets.load_dataset` loads. The other
files stay at home: replies in full, reasons of votes, prompts that are in no split, human review. The splits themselves
hold seeds (in `toxic`) and each moderator's vote (column `votes`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from orbench.errors import RunError, UsageError
from orbench.generation.folder import read_generation
from orbench.models.keys import HUB_VARIABLE, without_keys
from orbench.splits.files import read_table

_HEADER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")


def push(
    folder: str | Path,
    repo_id: str,
    *,
    license: str | None = None,  # noqa: A002 - the Hub's word for it
    private: bool = True,
    endpoint: str | None = None,
) -> str:
    """Push the splits of a generated folder to the Hub.

    The repository is made if it is not there; one that is there keeps its visibility and its other files. README.md,
    generation.json and the Parquet files that the card's configurations name are committed together, so nobody ever
    loads half of it.

    Args:
        folder: What `orbench generate --out` wrote.
        repo_id: `owner/name`.
        license: The Hub's identifier of the licence (`cc-by-4.0`, `apache-2.0`, `other`); None takes the card's.
        private: Whether a repository that is made now is private. It is by default: splits hold toxic prompts, and
            published prompts end up in training data.
        endpoint: Address of the Hub; by default `HF_ENDPOINT` or the public one.

    Returns:
        The address of the commit.

    Raises:
        UsageError: No licence, no token in `HF_TOKEN`, or a name that cannot be one.
        RunError: The folder is not a finished generation (calls are owed, or one stage was done alone since the splits
            were drawn), or the Hub does not take it.
        SplitError: A split cannot be read.
    """
    folder = Path(folder)
    header, body = _card(folder)
    header["license"] = _license(license or header.get("license"), folder)
    files = _data_files(header, folder)
    _check_finished(folder)
    for name in files:
        read_table(folder / name)
    token = os.environ.get(HUB_VARIABLE, "").strip()
    if not token:
        raise UsageError(f"no token for the Hub: set {HUB_VARIABLE} to one that may write to {repo_id}")
    card = f"---\n{_dump(header)}---\n{body}"
    return _commit(folder, repo_id, card.encode(), ["generation.json", *files], private, endpoint, token)


def _card(folder: Path) -> tuple[dict[str, Any], str]:
    import yaml

    path = folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: no dataset card ({error.strerror}): is {folder} a finished generation?") from None
    found = _HEADER.match(text)
    try:
        header = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise RunError(f"{path}: its YAML header cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not found or not isinstance(header, dict):
        raise RunError(f"{path}: does not begin with a YAML header between two lines of ---")
    return header, text[found.end() :]


def _license(name: object, folder: Path) -> str:
    if not name:
        raise UsageError(
            f"{folder}: no licence: nobody may use a data set without one. Say --license ID, such as cc-by-4.0, "
            "apache-2.0 or other; what the models' makers allow to be done with their output counts too"
        )
    if not isinstance(name, str) or not _LICENSE.fullmatch(name):
        raise UsageError(f"the licence {str(name)[:40]!r} is none of the Hub's identifiers, such as cc-by-4.0 or other")
    return name


def _data_files(header: dict[str, Any], folder: Path) -> list[str]:
    names: list[Any] = [config.get("data_files") for config in header.get("configs") or [] if isinstance(config, dict)]
    found: list[str] = []
    for each in [each for name in names for each in (name if isinstance(name, list) else [name])]:
        name = each.get("path") if isinstance(each, dict) else each
        path = folder / str(name)
        if not isinstance(name, str) or not path.is_file() or folder.resolve() not in path.resolve().parents:
            raise RunError(f"{folder}/README.md: its header names {str(name)[:80]!r}, which is no file in {folder}")
        found.append(name)
    if not found:
        raise RunError(f"{folder}/README.md: its header names no configuration with data_files")
    return list(dict.fromkeys(found))


def _check_finished(folder: Path) -> None:
    """Splits that are not of all that is there would be published with facts that are not theirs."""
    finished = read_generation(folder).get("finished")
    if not isinstance(finished, dict) or finished.get("stage") not in (None, "selection"):
        raise RunError(
            f"{folder}: not finished: run its `orbench generate` command again, without --stage, until nothing is owed"
        )


def _dump(header: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return text


def _commit(
    folder: Path, repo_id: str, card: bytes, names: list[str], private: bool, endpoint: str | None, token: str
) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if repo_id.count("/") != 1:
        raise UsageError(f"{repo_id!r} is no name of a data set: it is owner/name")
    api = HfApi(endpoint=endpoint, token=token)
    files = [CommitOperationAdd(name, str(folder / name)) for name in names]
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        done = api.create_commit(
            repo_id,
            [CommitOperationAdd("README.md", card), *files],
            repo_type="dataset",
            commit_message="Splits made with orbench",
        )
    except HFValidationError as error:
        raise UsageError(f"{repo_id!r} is no name of a data set: {_one_line(error)}") from None
    except HfHubHTTPError as error:
        refused = error.response.status_code in (401, 403)
        hint = f". Is {HUB_VARIABLE} a token that may write there?" if refused else ""
        raise RunError(f"the Hub does not take {repo_id}: {_one_line(error)}{hint}") from None
    except Exception as error:  # no answer: httpx, httpx2 or requests, by the version of huggingface_hub
        raise RunError(f"cannot push {repo_id} to the Hub at {api.endpoint}: {_one_line(error)}") from None
    return str(done.commit_url)


def _one_line(error: Exception) -> str:
    return " ".join(without_keys(str(error)).split())[:300].rstrip(".") or type(error).__name__
