"""orbench: does this model refuse what it should answer, and answer what it should refuse?

    import orbench
    result = orbench.evaluate("openai/gpt-4o-mini")
    print(result)

Importing this package imports nothing heavy; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors read; `_WHERE` and `__all__` say the same; a test compares
    from orbench.calibration import Calibration, calibrate
    from orbench.comparison import Comparison, compare
    from orbench.errors import (
        MissingExtraError,
        ModelError,
        OrbenchError,
        OrbenchWarning,
        RunError,
        SplitError,
        TemplateError,
        UsageError,
    )
    from orbench.evaluation import evaluate, evaluate_all, score
    from orbench.gate import Check, Gate, check
    from orbench.generation import Dataset, GenerationConfig, generate
    from orbench.imports import import_run
    from orbench.leaderboards import Leaderboard, leaderboard
    from orbench.models.base import Model, RejectedError, RetryableError
    from orbench.records import Completion, Message, Prompt, Request, Response, Sampling, Usage
    from orbench.report.html import write_report
    from orbench.results import Evaluation, Row
    from orbench.scoring.outcomes import Outcome, Verdict
    from orbench.scoring.scorers import detect_refusal
    from orbench.shards import merge
    from orbench.splits import Split, load_split, load_splits
    from orbench.statistics.rates import Rate
    from orbench.summary import Summary, summarise
    from orbench.sweeps import Sweep, sweep

__version__ = "0.1.0"

_WHERE = {
    "Calibration": "orbench.calibration",
    "Check": "orbench.gate",
    "Comparison": "orbench.comparison",
    "Completion": "orbench.records",
    "Dataset": "orbench.generation",
    "Evaluation": "orbench.results",
    "Gate": "orbench.gate",
    "GenerationConfig": "orbench.generation",
    "Leaderboard": "orbench.leaderboards",
    "Message": "orbench.records",
    "MissingExtraError": "orbench.errors",
    "Model": "orbench.models.base",
    "ModelError": "orbench.errors",
    "OrbenchError": "orbench.errors",
    "OrbenchWarning": "orbench.errors",
    "Outcome": "orbench.scoring.outcomes",
    "Prompt": "orbench.records",
    "Rate": "orbench.statistics.rates",
    "RejectedError": "orbench.models.base",
    "Request": "orbench.records",
    "Response": "orbench.records",
    "RetryableError": "orbench.models.base",
    "Row": "orbench.results",
    "RunError": "orbench.errors",
    "Sampling": "orbench.records",
    "Split": "orbench.splits",
    "SplitError": "orbench.errors",
    "Summary": "orbench.summary",
    "Sweep": "orbench.sweeps",
    "TemplateError": "orbench.errors",
    "Usage": "orbench.records",
    "UsageError": "orbench.errors",
    "Verdict": "orbench.scoring.outcomes",
    "calibrate": "orbench.calibration",
    "check": "orbench.gate",
    "compare": "orbench.comparison",
    "detect_refusal": "orbench.scoring.scorers",
    "evaluate": "orbench.evaluation",
    "evaluate_all": "orbench.evaluation",
    "generate": "orbench.generation",
    "import_run": "orbench.imports",
    "leaderboard": "orbench.leaderboards",
    "load_split": "orbench.splits",
    "load_splits": "orbench.splits",
    "merge": "orbench.shards",
    "score": "orbench.evaluation",
    "summarise": "orbench.summary",
    "sweep": "orbench.sweeps",
    "write_report": "orbench.report.html",
}

__all__ = [
    "Calibration",
    "Check",
    "Comparison",
    "Completion",
    "Dataset",
    "Evaluation",
    "Gate",
    "GenerationConfig",
    "Leaderboard",
    "Message",
    "MissingExtraError",
    "Model",
    "ModelError",
    "OrbenchError",
    "OrbenchWarning",
    "Outcome",
    "Prompt",
    "Rate",
    "RejectedError",
    "Request",
    "Response",
    "RetryableError",
    "Row",
    "RunError",
    "Sampling",
    "Split",
    "SplitError",
    "Summary",
    "Sweep",
    "TemplateError",
    "Usage",
    "UsageError",
    "Verdict",
    "__version__",
    "calibrate",
    "check",
    "compare",
    "detect_refusal",
    "evaluate",
    "evaluate_all",
    "generate",
    "import_run",
    "leaderboard",
    "load_split",
    "load_splits",
    "merge",
    "score",
    "summarise",
    "sweep",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that holds it."""
    if name not in _WHERE:
        raise AttributeError(f"module 'orbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *_WHERE})
