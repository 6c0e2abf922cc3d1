"""Named splits from the Hugging Face Hub, through `datasets` and its cache.

In: a named split and a revision. Out: a `Table` and a line that says which commit it is from. One request with a
short timeout comes first: it finds the commit, and where there is no network it fails at once, while
`datasets.load_dataset` alone would go on trying for half a minute. Then the copy in the cache serves, if there is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from orbench.errors import SplitError
from orbench.splits.files import Table
from orbench.splits.named import NamedSplit

REPOSITORY = "bench-llm/or-bench"
TIMEOUT_S = 10.0
"""Seconds that the first request may take."""


def load(named: NamedSplit, revision: str | None) -> Table:
    """Load a named split from the Hub, or from the cache if the Hub cannot be reached.

    Args:
        named: The split; it names the configuration.
        revision: Branch, tag or commit; None is `main`.

    Returns:
        The rows. `source` names repository, configuration, revision and commit.

    Raises:
        SplitError: No network and no cached copy of that revision, no such revision or repository, or a dataset
            without rows; the message says what to do.
    """
    import datasets

    revision = revision or "main"
    with _quiet():
        commit, why = _commit(revision)
        datasets.config.HF_HUB_OFFLINE = commit is None  # undone by _quiet
        try:
            rows = datasets.load_dataset(REPOSITORY, named.config, split="train", revision=commit or revision)
        except Exception as error:  # any library below can fail in any way here, and none of it is a bug of ours
            raise _failure(named, revision, why or _one_line(error)) from None
    if commit is None:
        # The cache is searched by name alone; its folder is named by the commit.
        commit = Path(rows.cache_files[0]["filename"]).parent.name
        if revision != "main" and not (len(revision) >= 7 and commit.startswith(revision)):
            raise _failure(named, revision, why)
    origin = source(named, commit if commit == revision else f"{revision} ({commit[:12]})")
    names = [name for name in ("prompt", "category") if name in rows.column_names]
    if not len(rows) or "prompt" not in names:
        raise SplitError(f"{origin}: no prompts in it; columns: {', '.join(rows.column_names)}. {_INSTEAD}")
    return Table(origin, len(rows), rows.select_columns(names)[:], rows.column_names)


def source(named: NamedSplit, at: str = "main") -> str:
    """Name a split on the Hub for people, at a revision."""
    return f"hub:{REPOSITORY}/{named.config}@{at}"


_INSTEAD = "To do without the Hub: --data DIR or ORBENCH_DATA_DIR=DIR, with the split's file in DIR"


def _failure(named: NamedSplit, revision: str, why: str) -> SplitError:
    return SplitError(f"cannot load the split {named.name!r} from the Hub ({REPOSITORY}@{revision}): {why}. {_INSTEAD}")


def _commit(revision: str) -> tuple[str | None, str]:
    """Commit of a revision on the Hub; None and the reason if the Hub does not answer.

    Raises:
        SplitError: The Hub answers that there is no such thing.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return HfApi().dataset_info(REPOSITORY, revision=revision, timeout=TIMEOUT_S).sha, ""
    except RevisionNotFoundError:
        raise SplitError(
            f"the Hub dataset {REPOSITORY} has no revision {revision!r}: leave out --revision for main"
        ) from None
    except RepositoryNotFoundError:
        raise SplitError(
            f"the Hub has no dataset {REPOSITORY}, or wants a token for it (HF_TOKEN). {_INSTEAD}"
        ) from None
    except Exception as error:  # httpx, httpx2 or requests, by the version of huggingface_hub
        return None, f"no answer from it ({_one_line(error)}), and no copy in the cache"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, log lines, warnings or download counts (a request to another host) while the libraries work."""
    import datasets
    import huggingface_hub

    config: Any = datasets.config
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings(action="ignore"))
        for name in ("HF_HUB_OFFLINE", "HF_UPDATE_DOWNLOAD_COUNTS"):
            undo.callback(setattr, config, name, getattr(config, name))
        config.HF_UPDATE_DOWNLOAD_COUNTS = False
        for utils in (datasets.utils, huggingface_hub.utils):
            undo.callback(utils.logging.set_verbosity, utils.logging.get_verbosity())
            utils.logging.set_verbosity_error()
            if not utils.are_progress_bars_disabled():
                undo.callback(utils.enable_progress_bars)
                utils.disable_progress_bars()
        yield
