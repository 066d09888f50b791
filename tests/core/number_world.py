"""A policy, a scorer and a value model made of arithmetic, for searches: no weights, no images.

A sentence is "Say N."; what is proposed depends on slot, step, the sentence kept, and the candidate's index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tasks.core.search.contract import Candidate

WIDTH = 3


def number(text: str) -> int:
    return int(text.removesuffix(".").split()[-1])


def proposer(
    width: int = WIDTH, ends_after: int = 5
) -> Callable[[Mapping[int, Candidate | None]], dict[int, list[Candidate]]]:
    """Candidate i of a slot says kept * 3 + 5 * i + slot, modulo 23; the greedy one ends the answer after `ends_after`."""
    steps: dict[int, int] = {}

    def propose(kept: Mapping[int, Candidate | None]) -> dict[int, list[Candidate]]:
        proposals = {}
        for slot, last in kept.items():
            steps[slot] = steps.get(slot, 0) + 1
            base = 0 if last is None else number(last.text)
            proposals[slot] = [
                Candidate(
                    text=f"Say {(3 * base + 5 * i + slot + 1) % 23}.",
                    temperature=i / 10,
                    ended=i == 0 and steps[slot] > ends_after,
                    drawn=3,
                    handle=i,
                )
                for i in range(width)
            ]
        return proposals

    return propose


def scorer(sentences: Sequence[tuple[int, str]]) -> list[float | None]:
    """Small numbers score high; 13 can't be scored."""
    return [None if number(text) == 13 else 1 - number(text) / 10 for _, text in sentences]


def valuer(sentences: Sequence[tuple[int, str, str]]) -> list[float]:
    """Numbers near 11 are worth most, whatever they score."""
    return [-abs(number(text) - 11) / 11 for _, _, text in sentences]


def said(*texts: str, ended: bool = False) -> list[Candidate]:
    return [Candidate(text, 0.0, ended, 1, handle=i) for i, text in enumerate(texts)]


def script(*steps: list[Candidate]) -> Callable[[Mapping[int, Candidate | None]], dict[int, list[Candidate]]]:
    """Propose the same list of candidates to every slot, one list a step."""
    left = list(steps)

    def propose(kept: Mapping[int, Candidate | None]) -> dict[int, list[Candidate]]:
        now = left.pop(0)
        return {slot: now for slot in kept}

    return propose
