"""What ViMaR's released code does after it chose an answer: it only appends."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.core.search.contract import Ask, Candidate, Found, Task, say
from tasks.core.search.ranking import best, worth
from tasks.core.search.vimar_answers import Guide


def as_released(
    found: Found,
    task: Task,
    guide: Guide,
    winner: Candidate,
    judged: Sequence[tuple[Candidate, float | None]],
    *,
    threshold: float,
) -> Ask[Found]:
    """Append sentences to the whole answer until the best new one is the one chosen before (`repeat`).

    The answer without its weak sentences (guide under `threshold`) is used only as the text that the first new
    sentence is compared with; nothing is removed. A sentence ends at any full stop, and one that was said, or is empty, stays a
    candidate. `max_sentences` is a limit on the sentences proposed that the released code has commented out.
    """
    settings = task.settings
    found.sentences = [sentence.text for sentence, _ in judged]
    previous = " ".join(sentence.text for sentence, one in judged if worth(one) >= threshold)
    after = winner
    for step in range(1, settings.max_sentences + 1):
        candidates = yield from say(after, settings.temperatures, max_tokens=settings.max_sentence_tokens, until=".")
        guides = yield from guide([(found.text, candidate) for candidate in candidates])
        chosen = best(guides, range(len(candidates)))
        text = candidates[chosen].text
        columns = guide.columns(dict(enumerate(guides)))
        found.note(step, candidates, columns, None if text == previous else chosen, phase="refine")
        if text == previous:
            return found.stop("repeat")
        previous = text
        if text:
            found.sentences.append(text)
            after = candidates[chosen]
    return found.stop("max_sentences")
