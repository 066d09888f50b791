"""Best of n whole answers (a baseline of VisVM, arXiv 2412.03704): by score, by value, or as the policy itself judges."""

from __future__ import annotations

from tasks.core.search.contract import ANSWER, Ask, Candidate, Found, Settings, Strategy, Task, say, split, value
from tasks.core.search.judge import tournament
from tasks.core.search.options import own_options
from tasks.core.search.ranking import answered, best, mean, sentence_means, speaking


def search(task: Task) -> Ask[Found]:
    """One answer a temperature; the best one by `settings.by` (default: score).

    `score`: the largest mean score of the answer's sentences; `value`: the largest mean V of them, each after those before
    it; `judge`: the winner of a tournament that the policy judges. An empty answer never wins over another one; on equal
    terms the earlier wins. Stops as the winner ended: `end`, or `length` at max_new_tokens.
    """
    settings = task.settings
    by = settings.by or "score"
    own_options(settings)
    candidates = yield from say(
        None, settings.temperatures, max_tokens=settings.max_new_tokens, until=ANSWER, keep=by == "value"
    )
    if by == "judge":
        chosen = yield from tournament("answer", task, "", candidates, speaking(candidates))
        return answered(candidates, chosen)
    if by == "value":
        means = yield from value_means(candidates)
    else:
        means = yield from sentence_means([candidate.text for candidate in candidates])
    judged = {i: (None, one) if by == "value" else (one, None) for i, one in enumerate(means)}
    return answered(candidates, best(means, speaking(candidates)), judged)


def value_means(answers: list[Candidate]) -> Ask[list[float | None]]:
    """The mean V of each answer's sentences, all asked for in one request; None for an empty answer."""
    parts: list[list[tuple[str, Candidate]]] = []
    for answer in answers:
        sentences = (yield from split(answer)) if answer.text else []
        parts.append(with_prefixes(sentences))
    values = iter((yield from value([item for part in parts for item in part])))
    return [mean([next(values) for _ in part]) for part in parts]


def with_prefixes(sentences: list[Candidate]) -> list[tuple[str, Candidate]]:
    """Each sentence of one answer with the text before it."""
    return [(" ".join(one.text for one in sentences[:i]), sentence) for i, sentence in enumerate(sentences)]


def needs(settings: Settings) -> frozenset[str]:
    """What the chosen way of picking the winner asks for; a judging policy needs nothing more."""
    return {"score": frozenset({"scorer"}), "value": frozenset({"value"}), "judge": frozenset[str]()}[
        settings.by or "score"
    ]


best_of_n = Strategy(search, needs)
