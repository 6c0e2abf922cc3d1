"""The errors a user can meet, as one small tree.

    OrbenchError
    ├── UsageError          the request itself makes no sense (exit code 2)
    ├── SplitError          prompts that cannot be read or found
    ├── ModelError          a model that cannot be used at all: the run stops at once
    │   └── MissingExtraError   ... because an optional package is not installed
    ├── RunError            a run folder that cannot be used, read or written
    └── TemplateError       a prompt template that is missing or does not render

Each message says what was wrong, where, and what to do. The command line prints the message alone, without a
traceback. Failures of a single call are no `OrbenchError`: see `orbench.models.base`.
"""

from __future__ import annotations


class OrbenchError(Exception):
    """Base of every error that orbench raises on purpose."""


class UsageError(OrbenchError):
    """Options or arguments that cannot be meant; the command line exits with 2."""


class SplitError(OrbenchError):
    """A split that cannot be found, read or understood; names file, row and column where there is one."""


class ModelError(OrbenchError):
    """A model that cannot answer anything: unknown, no key, wrong key, unreachable. Stops the run at once."""


class MissingExtraError(ModelError):
    """A provider whose optional packages are not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """Name the thing that was asked for and the extra that brings it."""
        super().__init__(f"{what} needs the extra `{extra}`: pip install 'orbench[{extra}]'")
        self.extra = extra


class RunError(OrbenchError):
    """A run folder that is locked, damaged, full, or belongs to another configuration."""


class TemplateError(OrbenchError):
    """A prompt template that is missing or cannot be rendered."""


class OrbenchWarning(UserWarning):
    """Something the user should know that does not stop the work."""
