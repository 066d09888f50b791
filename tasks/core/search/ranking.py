"""What the strategies share to compare texts: means, the best of several, new sentences, a result of whole answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tasks.core.search.contract import Judgements, SearchResult, StopReason
from tasks.core.search.requests import Candidate, Search, score
from tasks.core.text import split_sentences, words


def worth(guide: float | None) -> float:
    """A guide as a number to compare: what can't be judged ranks below everything that can."""
    return float("-inf") if guide is None else guide


def best(guides: Mapping[int, float | None] | Sequence[float | None], among: Iterable[int]) -> int:
    """The index of the largest guide of those in `among` (not empty); of equal ones the earlier."""
    return max(among, key=lambda i: (worth(guides[i]), -i))


def non_empty(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates with a text; all of them if none has one."""
    return [i for i, candidate in enumerate(candidates) if candidate.text] or list(range(len(candidates)))


def fresh(candidates: Sequence[Candidate], sentences: Sequence[str]) -> list[int]:
    """Indices of candidates that are not empty, repeat none of `sentences`, and no earlier candidate."""
    seen = {tuple(words(sentence)) for sentence in sentences}
    indices = []
    for index, candidate in enumerate(candidates):
        key = tuple(words(candidate.text))
        if key and key not in seen:
            seen.add(key)
            indices.append(index)
    return indices


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def sentence_means(texts: Sequence[str]) -> Search[list[float | None]]:
    """The mean score of each text's sentences, in one request for all texts."""
    parts = [split_sentences(text) for text in texts]
    before = [text[: sentence.start].rstrip() for text, part in zip(texts, parts, strict=True) for sentence in part]
    scores = iter((yield from score([sentence.text for part in parts for sentence in part], before)))
    return [mean([next(scores) for _ in part]) for part in parts]


def how_it_ended(candidate: Candidate) -> StopReason:
    """`end` if the policy ended its answer, `length` if a limit cut it."""
    return StopReason.END if candidate.ended else StopReason.LENGTH


def choose_answer(candidates: Sequence[Candidate], chosen: int, judgements: Judgements | None = None) -> SearchResult:
    """The result of a search whose one step chooses among whole answers."""
    result = SearchResult()
    result.record(0, candidates, judgements or {}, chosen)
    text = candidates[chosen].text
    result.sentences = [text] if text else []
    return result.finish(how_it_ended(candidates[chosen]))
