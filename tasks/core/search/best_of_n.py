"""Best of n whole answers (a baseline of VisVM, arXiv 2412.03704): by score, by value, or as the policy itself judges."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Settings, Strategy, Task
from tasks.core.search.judge import pairings, tournament
from tasks.core.search.options import own_options
from tasks.core.search.ranking import best, choose_answer, mean, non_empty, sentence_means
from tasks.core.search.requests import ANSWER, Candidate, Search, propose, split_answer, value
from tasks.core.text import joined


def search(task: Task) -> Search[SearchResult]:
    """Draw one answer for each temperature; the best one by `settings.by` (default: score) is the result.

    `score`: the largest mean score of the answer's sentences; `value`: the largest mean V of them, each after those before
    it; `judge`: the winner of a tournament that the policy judges (option `pairs`: both_orders or random, see
    `judge.tournament`). An empty answer never wins over another; of equal ones the earlier wins. Stops as the winner ended:
    `end`, or `length` at max_new_tokens.
    """
    settings = task.settings
    by = settings.by or "score"
    own = own_options(settings, **({"pairs": pairings(settings)} if by == "judge" else {}))
    candidates = yield from propose(
        None, settings.temperatures, max_tokens=settings.max_new_tokens, until=ANSWER, keep=by == "value"
    )
    if by == "judge":
        chosen = yield from tournament("answer", task, "", candidates, non_empty(candidates), own["pairs"])
        return choose_answer(candidates, chosen)
    if by == "value":
        means = yield from value_means(candidates)
    else:
        means = yield from sentence_means([candidate.text for candidate in candidates])
    judgements = {i: (None, guide) if by == "value" else (guide, None) for i, guide in enumerate(means)}
    return choose_answer(candidates, best(means, non_empty(candidates)), judgements)


def value_means(answers: list[Candidate]) -> Search[list[float | None]]:
    """The mean V of each answer's sentences, in one request for all answers; None for an empty answer."""
    parts: list[list[tuple[str, Candidate]]] = []
    for answer in answers:
        sentences = (yield from split_answer(answer)) if answer.text else []
        parts.append(with_prefixes(sentences))
    values = iter((yield from value([item for part in parts for item in part])))
    return [mean([next(values) for _ in part]) for part in parts]


def with_prefixes(sentences: list[Candidate]) -> list[tuple[str, Candidate]]:
    """Each sentence of one answer with the text before it."""
    texts, spaces = [sentence.text for sentence in sentences], [sentence.space for sentence in sentences]
    return [(joined(texts[:i], spaces), sentence) for i, sentence in enumerate(sentences)]


def needs(settings: Settings) -> frozenset[str]:
    """What ranking by `settings.by` needs; the policy as judge needs nothing more."""
    return {"score": frozenset({"scorer"}), "value": frozenset({"value"}), "judge": frozenset[str]()}[
        settings.by or "score"
    ]


best_of_n = Strategy(search, needs)
