"""Pairs of answers about an image, and which of several judges chooses the better answer.

The better answer is that which names fewer absent objects. Pure: requests out, replies in, counts out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from storage.schema import SearchStep
from tasks.core.benchmarks.chair import chair_item
from tasks.core.metrics import Ratio
from tasks.core.search.contract import SearchResult, StopReason
from tasks.core.search.judge import VERDICT_TOKENS, question, verdict
from tasks.core.search.requests import Candidate, Search, ask


class Pair(NamedTuple):
    """Two answers, and which one is better: -1 the first, 1 the second, 0 neither."""

    sample_id: str
    first: str
    second: str
    better: int


def pairs_of(answers: Iterable[SearchStep], truth: Mapping[str, set[str]]) -> list[Pair]:
    """The greedy answer of every sample with each other one that differs from it, in the order they were drawn."""
    by_sample: dict[str, list[str]] = {}
    for row in sorted(answers, key=lambda row: (row.sample_id, row.candidate)):
        if row.step == 0 and row.text and row.sample_id in truth:
            by_sample.setdefault(row.sample_id, []).append(row.text)
    pairs = []
    for sample_id, texts in by_sample.items():
        first, *others = dict.fromkeys(texts)
        errors = {text: chair_item(text, truth[sample_id])[0].hallucinated for text in (first, *others)}
        pairs += [Pair(sample_id, first, other, _sign(errors[first] - errors[other])) for other in others]
    return pairs


def examine(prompt: str, pairs: Sequence[Pair]) -> Search[SearchResult]:
    """Ask the policy about each pair in both orders; the replies are the trace's texts, two a pair."""
    result = SearchResult()
    for step, pair in enumerate(pairs):
        replies = []
        for texts in ((pair.first, pair.second), (pair.second, pair.first)):
            text = yield from ask(question("answer", prompt, "", *texts), max_tokens=VERDICT_TOKENS)
            replies.append(Candidate(text, 0.0, ended=True, drawn=0))
        result.record(step, replies, {}, None)
    return result.finish(StopReason.END)


def policy_counts(
    pairs: Sequence[Pair], replies: Sequence[tuple[str, str]], samples: Sequence[str]
) -> dict[str, Ratio]:
    """The policy as a judge, as counts of every sample [N].

    `undecided` of its verdicts; `first_wins` of the decided verdicts; `swap_agreement`: pairs of which both orders choose the
    same answer; `pair_accuracy`: pairs whose better answer is chosen in both orders, half where it chooses none or both.
    """
    counts = _Counts(samples)
    for pair, in_both_orders in zip(pairs, replies, strict=True):
        in_order, swapped = map(verdict, in_both_orders)
        for given in (in_order, swapped):
            counts.add("undecided", pair, given is None)
            if given is not None:
                counts.add("first_wins", pair, given == 1)
        # In the swapped order the second answer stands first.
        chosen = {(1, 2): -1, (2, 1): 1}.get((in_order or 0, swapped or 0), 0)
        counts.add("swap_agreement", pair, chosen != 0)
        if pair.better:
            counts.add("pair_accuracy", pair, _right(chosen, pair))
    return counts.ratios()


def guide_counts(
    pairs: Sequence[Pair], guides: Mapping[tuple[str, str], float], samples: Sequence[str]
) -> dict[str, Ratio]:
    """A number as a judge, as counts of every sample [N]: `pair_accuracy`, ties half.

    `guides`: (sample, answer) -> its score or value; a pair with an answer that has none is left out.
    """
    counts = _Counts(samples)
    for pair in pairs:
        first, second = guides.get((pair.sample_id, pair.first)), guides.get((pair.sample_id, pair.second))
        if pair.better and first is not None and second is not None:
            counts.add("pair_accuracy", pair, _right(_sign(second - first), pair))
    return counts.ratios()


def guides_of(trace: Iterable[SearchStep], guide: Callable[[SearchStep], float | None]) -> dict[tuple[str, str], float]:
    """(sample, whole answer) -> the guide it was chosen by."""
    return {(row.sample_id, row.text): value for row in trace if (value := guide(row)) is not None}


class _Counts:
    """Sums a sample and metric."""

    def __init__(self, samples: Sequence[str]) -> None:
        self.at = {sample: index for index, sample in enumerate(samples)}
        self.sums: dict[str, np.ndarray] = {}

    def add(self, metric: str, pair: Pair, amount: float) -> None:
        sums = self.sums.setdefault(metric, np.zeros((2, len(self.at))))
        sums[:, self.at[pair.sample_id]] += (float(amount), 1.0)

    def ratios(self) -> dict[str, Ratio]:
        return {metric: Ratio(top, bottom) for metric, (top, bottom) in self.sums.items()}


def _right(chosen: int, pair: Pair) -> float:
    return 0.5 if not chosen else float(chosen == pair.better)


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
