"""What ViMaR's released code does after choosing an answer: it only appends."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, StopReason, Task
from tasks.core.search.ranking import best, worth
from tasks.core.search.requests import Search, propose
from tasks.core.search.vimar_answers import Draft, Guide
from tasks.core.text import joined


def append_as_released(
    result: SearchResult, task: Task, guide: Guide, draft: Draft, *, threshold: float
) -> Search[SearchResult]:
    """Append sentences to the whole answer until the best new one, just appended, equals the one chosen before (`repeat`).

    The answer without its weak sentences (guide under `threshold`) is only the text that the first new sentence is compared
    with; nothing is removed. A sentence ends at any full stop, and repeated or empty ones stay candidates. `max_sentences`
    limits the proposed sentences; the released code has that limit commented out.
    """
    settings = task.settings
    for sentence in draft.sentences:
        result.add(sentence)
    judged = zip(draft.sentences, draft.guides, strict=True)
    strong = [sentence for sentence, estimate in judged if worth(estimate) >= threshold]
    previous = joined([sentence.text for sentence in strong], [sentence.space for sentence in strong])
    after = draft.answer
    for step in range(1, settings.max_sentences + 1):
        candidates = yield from propose(
            after, settings.temperatures, max_tokens=settings.max_sentence_tokens, until="."
        )
        guides = yield from guide([(result.text, candidate) for candidate in candidates])
        chosen = best(guides, range(len(candidates)))
        text = candidates[chosen].text
        judgements = guide.judgements(dict(enumerate(guides)))
        result.record(step, candidates, judgements, chosen, phase="refine")
        if text:
            after = candidates[chosen]
            result.add(after)
        if text == previous:
            return result.finish(StopReason.REPEAT)
        previous = text
    return result.finish(StopReason.MAX_SENTENCES)
