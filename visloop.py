"""What packages with search strategies or rewards of their own may rely on; anything else may change without notice.

A strategy is a generator over the requests below, installed under an entry point of group `visloop.strategies`; a `Reward` is
a function `(image, sentences) -> scores`, under one of group `visloop.rewards`. docs/strategies.md has an example of each.
"""

from __future__ import annotations

from importlib.metadata import version

from storage.objects import ArtifactError
from tasks.core.models.plugin_scorer import Reward
from tasks.core.search.contract import (
    ANSWER,
    SENTENCE,
    Ask,
    Candidate,
    Found,
    Generate,
    Reply,
    Request,
    Say,
    Score,
    Search,
    Settings,
    Split,
    Strategy,
    Task,
    TraceRow,
    Value,
    Write,
    fresh,
    generate,
    reply,
    run_alone,
    say,
    score,
    split,
    strategy,
    value,
    write,
)
from tasks.stage.quarantine import StageInputError

__version__ = version("visloop")

__all__ = [
    "ANSWER",
    "SENTENCE",
    "ArtifactError",
    "Ask",
    "Candidate",
    "Found",
    "Generate",
    "Reply",
    "Request",
    "Reward",
    "Say",
    "Score",
    "Search",
    "Settings",
    "Split",
    "StageInputError",
    "Strategy",
    "Task",
    "TraceRow",
    "Value",
    "Write",
    "__version__",
    "fresh",
    "generate",
    "reply",
    "run_alone",
    "say",
    "score",
    "split",
    "strategy",
    "value",
    "write",
]
