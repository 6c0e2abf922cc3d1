"""The command line: one thin function a command; everything it does can be done from Python."""

from __future__ import annotations

import sys
import warnings

from orbench.errors import OrbenchError, OrbenchWarning, UsageError


def main() -> None:
    """Run the command and exit with its code.

    0 done, 1 could not be done, 2 wrong usage, 3 done with rows that ended in error, 130 interrupted.
    """
    from orbench.cli.app import app

    warnings.showwarning = _show_warning
    try:
        app()
    except OrbenchError as error:
        print(f"orbench: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print(
            "orbench: interrupted. Everything received is saved; run the same command again to go on", file=sys.stderr
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, as `| head` does
        sys.exit(141)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, OrbenchWarning):
        print(f"orbench: warning: {message}", file=sys.stderr)
