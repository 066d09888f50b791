"""The experiments and their questions. Imports none of them, so that listing is fast."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from flows.profiles.loading import ProfileError

if TYPE_CHECKING:
    from flows.experiments.contract import Experiment

# In this order: quality of V, gain of search, cost of search, what matters in a search, training.
QUESTIONS = {
    "value-sanity": "Does V know true sentences from hallucinated ones, and what will follow?",
    "compare": "What does any strategy reach, at which measured work?",
    "search-compare": "Which search says least that is false, at the same measured work?",
    "budget-curve": "What do more candidates buy, and where do they stop to pay?",
    "cost": "What does each search take: time, tokens and memory, by images in flight and image size?",
    "cost-total": "After how many captions has a value model paid for its training?",
    "tau-sweep": "How much hangs on the rewards' margin, its penalty and its form?",
    "gamma-sweep": "Does the long view of V matter, or only the next sentence's reward?",
    "td-vs-mc": "What should V be regressed on, and what follows a last sentence?",
    "temperature": "One temperature or several for a search's candidates?",
    "stage-ablation": "Which of ViMaR's two stages does the work?",
    "granularity": "Search by token, sentence, stage or whole answer, at the same measured work?",
    "judge": "Who judges best: the policy itself, the reward model or V?",
    "self-train": "Does training on searched captions help, beyond training on one's own?",
    "cross-model": "Does a value model trained on one policy guide another?",
    "third-policy": "Does self-training help a policy of another architecture, too?",
    "reward-swap": "How alike are the rewards, and what does each do to captions?",
    "token-vs-sentence": "Rewards for object words or for sentences, and for which kinds of objects?",
    "forgetting": "What does training on captions cost elsewhere, and does replay prevent it?",
    "tags": "Do the tags of staged answers matter, and the order of the stages?",
    "scale": "Does a fixed value model help larger policies as much as small ones?",
    "human-eval": "Do people prefer the searched captions?",
}


def find(name: str, task: str = "captions") -> Experiment:
    """An experiment by its name, in its form for a profile's task.

    Raises:
        ProfileError: no experiment has this name; the message lists those that exist.
    """
    if name not in QUESTIONS:
        near = difflib.get_close_matches(name, QUESTIONS, 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ProfileError(f"no experiment named {name!r}{hint}\n  there are: {', '.join(QUESTIONS)}")
    experiment: Experiment = importlib.import_module(f"flows.experiments.{name.replace('-', '_')}").EXPERIMENT
    return experiment.on_answers if task == "answers" and experiment.on_answers else experiment
