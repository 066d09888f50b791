"""What packages with search strategies or rewards of their own may rely on; anything else may change without notice.

A strategy is a generator over the requests below, installed under an entry point of group `visloop.strategies`; a `Reward` is
a function `(image, sentences) -> scores`, under one of group `visloop.rewards`. docs/strategies.md has an example of each.
"""

from __future__ import annotations

from importlib.metadata import version

from storage.objects import ArtifactError
from tasks.core.models.plugin_scorer import Reward
from tasks.core.search.contract import (
    Judgements,
    SearchFunction,
    SearchResult,
    Settings,
    StopReason,
    Strategy,
    Task,
    TraceRow,
    run_alone,
    strategy,
)
from tasks.core.search.requests import (
    ANSWER,
    SENTENCE,
    Ask,
    Candidate,
    Complete,
    Force,
    Generate,
    Propose,
    Request,
    Score,
    Search,
    SplitSentences,
    Value,
    ask,
    complete,
    force,
    generate,
    propose,
    score,
    split_answer,
    value,
)
from tasks.stage.quarantine import StageInputError

__version__ = version("visloop")

__all__ = [
    "ANSWER",
    "SENTENCE",
    "ArtifactError",
    "Ask",
    "Candidate",
    "Complete",
    "Force",
    "Generate",
    "Judgements",
    "Propose",
    "Request",
    "Reward",
    "Score",
    "Search",
    "SearchFunction",
    "SearchResult",
    "Settings",
    "SplitSentences",
    "StageInputError",
    "StopReason",
    "Strategy",
    "Task",
    "TraceRow",
    "Value",
    "__version__",
    "ask",
    "complete",
    "force",
    "generate",
    "propose",
    "run_alone",
    "score",
    "split_answer",
    "strategy",
    "value",
]
