"""What the strategies share when they compare texts: means, the best of several, a whole answer as the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tasks.core.search.contract import Ask, Candidate, Found, score
from tasks.core.text import split_sentences


def worth(guide: float | None) -> float:
    """A guide as a number to compare: what can't be judged is worth less than anything that can."""
    return float("-inf") if guide is None else guide


def best(guides: Mapping[int, float | None] | Sequence[float | None], among: Iterable[int]) -> int:
    """The index with the largest guide of those in `among` (not empty); on equal terms the earlier one."""
    return max(among, key=lambda i: (worth(guides[i]), -i))


def speaking(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates with a text; all of them where none has one."""
    return [i for i, candidate in enumerate(candidates) if candidate.text] or list(range(len(candidates)))


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def sentence_means(texts: Sequence[str]) -> Ask[list[float | None]]:
    """The mean score of each text's sentences, all asked for in one request."""
    parts = [[sentence.text for sentence in split_sentences(text)] for text in texts]
    scores = iter((yield from score([sentence for part in parts for sentence in part])))
    return [mean([next(scores) for _ in part]) for part in parts]


def how_it_ended(candidate: Candidate) -> str:
    """`end` if the policy ended its answer, `length` if it was cut off."""
    return "end" if candidate.ended else "length"


def answered(
    candidates: Sequence[Candidate],
    chosen: int,
    judged: Mapping[int, tuple[float | None, float | None]] | None = None,
) -> Found:
    """The result of a search whose one step chooses among whole answers."""
    found = Found()
    found.note(0, candidates, judged or {}, chosen)
    text = candidates[chosen].text
    found.sentences = [text] if text else []
    return found.stop(how_it_ended(candidates[chosen]))
