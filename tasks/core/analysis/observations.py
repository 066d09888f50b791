"""How a search went and how good its guide was, from traces and held-out values. Pure: rows in, ratios and numbers out.

A sentence counts as hallucinated if it names an object that isn't in the image, as true if all it names are there; a sentence
that names none counts as neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from storage.schema import Caption, SearchStep, Value
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import Ratio, auc, spearman
from tasks.core.text import split_sentences

Truth = Mapping[str, set[str]]  # sample -> the objects of its image


def guide_of(row: SearchStep) -> float | None:
    """What a candidate was chosen by: its value, or else its score."""
    return row.score if row.value is None else row.value


def wrong(sentence: str, truth: set[str]) -> bool | None:
    """Whether a sentence is hallucinated; None if it names no object."""
    mentioned = {mention.object for mention in find_mentions(sentence)}
    return not mentioned <= truth if mentioned else None


def steps_of(trace: Iterable[SearchStep]) -> dict[str, dict[int, list[SearchStep]]]:
    """The candidates of every step of every sample, in order."""
    steps: dict[str, dict[int, list[SearchStep]]] = {}
    for row in sorted(trace, key=lambda row: (row.sample_id, row.step, row.candidate)):
        steps.setdefault(row.sample_id, {}).setdefault(row.step, []).append(row)
    return steps


def habits(captions: Sequence[Caption], trace: Sequence[SearchStep], truth: Truth) -> dict[str, Ratio]:
    """How a search went, each habit as counts of every caption [N], in the captions' order.

    `stop: X`: share of captions that ended for X; `sentences`; `T=X`: share of the choices made at a temperature;
    `distinct`: share of different texts among a step's candidates; `step_spread`: mean deviation of a step's guides; `ties`:
    share of steps whose candidates have one guide; `wrong_proposed`, `wrong_chosen`: share of the candidates, and of the
    choices, that are hallucinated; where sentences are refined `refined`, the share of captions, and `changed`, the
    sentences replaced or dropped a caption.
    """
    steps = steps_of(trace)
    counts = [_of_caption(list(steps.get(row.sample_id, {}).values()), truth[row.sample_id]) for row in captions]
    ones = np.ones(len(captions))
    ratios = {"sentences": Ratio(np.array([float(len(split_sentences(row.text))) for row in captions]), ones)}
    for reason in sorted({row.stop_reason for row in captions}):
        ratios[f"stop: {reason}"] = Ratio(np.array([float(row.stop_reason == reason) for row in captions]), ones)
    temperatures = {name for count in counts for name in count if name.startswith("T=")}
    for name in sorted(temperatures, key=lambda name: float(name[2:])):
        ratios[name] = _over(counts, name, "choices")
    for name, bottom in (("step_spread", "steps"), ("ties", "steps"), ("distinct", "proposed"), ("wrong_proposed", "named"),
                         ("wrong_chosen", "named_chosen")):  # fmt: skip
        if any(count[bottom] for count in counts):
            ratios[name] = _over(counts, name, bottom)
    if any(row.phase == "refine" for row in trace):
        ratios["refined"] = Ratio(np.array([float(count["changed"] > 0) for count in counts]), ones)
        ratios["changed"] = Ratio(np.array([float(count["changed"]) for count in counts]), ones)
    return ratios


def _over(counts: Sequence[Mapping[str, float]], top: str, bottom: str) -> Ratio:
    tops, bottoms = [float(count[top]) for count in counts], [float(count[bottom]) for count in counts]
    return Ratio(np.array(tops), np.array(bottoms))


def _of_caption(steps: Sequence[Sequence[SearchStep]], truth: set[str]) -> Counter[str]:
    """The counts of one caption."""
    counts: Counter[str] = Counter()
    for step in steps:
        guides = [guide for row in step if (guide := guide_of(row)) is not None]
        if len(guides) > 1:
            counts["steps"] += 1
            counts["step_spread"] += float(np.std(guides))  # type: ignore[assignment]
            counts["ties"] += len(set(guides)) == 1
        if len(step) > 1:
            counts["proposed"] += len(step)
            counts["distinct"] += len({row.text for row in step})
        chosen = [row.candidate for row in step if row.chosen]
        # Refining a sentence has a candidate more than there were answers: the first is the sentence itself.
        counts["changed"] += step[0].phase == "refine" and len(step) > len(steps[0]) and chosen != [0]
        for row in step:
            judged = wrong(row.text, truth)
            counts["named"] += judged is not None
            counts["wrong_proposed"] += bool(judged)
            if row.chosen:
                counts["choices"] += 1
                counts[f"T={row.temperature:g}"] += 1
                counts["named_chosen"] += judged is not None
                counts["wrong_chosen"] += bool(judged)
    return counts


def agreement(
    captions: Sequence[Caption], trace: Sequence[SearchStep], others: Mapping[str, str], theirs: Sequence[SearchStep]
) -> dict[str, Ratio]:
    """How often two searches agree, as counts of every caption [N]: on the first sentence, and on the whole caption.

    Both drew the same first candidates if seed and temperatures are the same; what follows depends on what was chosen.
    `pair_agreement`: of every two of these candidates that both guides tell apart, the share that they order in the same way.

    Args:
        captions: of the first search.
        trace: of the first search.
        others: sample -> text, of the second search.
        theirs: trace of the second search.
    """
    mine, other = _first(trace), _first(theirs)
    ones = np.ones(len(captions))
    same = [float(row.text == others[row.sample_id]) for row in captions]
    first = [float(mine.get(row.sample_id) == other.get(row.sample_id)) for row in captions]
    ratios = {"agreement": Ratio(np.array(same), ones), "first_agreement": Ratio(np.array(first), ones)}
    my_guides, their_guides = _guides(trace), _guides(theirs)
    orders = [_same_order(my_guides, their_guides, row.sample_id) for row in captions]
    if any(pairs for _, pairs in orders):
        ratios["pair_agreement"] = Ratio(*(np.array(column, float) for column in zip(*orders, strict=True)))
    return ratios


Guides = dict[str, dict[str, float]]  # sample -> text of a first candidate -> its guide


def _guides(trace: Iterable[SearchStep]) -> Guides:
    guides: Guides = {}
    for row in trace:
        guide = guide_of(row)
        if row.step == 0 and guide is not None:
            guides.setdefault(row.sample_id, {})[row.text] = guide
    return guides


def _same_order(mine: Guides, theirs: Guides, sample: str) -> tuple[int, int]:
    """(pairs in the same order, pairs) of a sample's first candidates."""
    a, b = mine.get(sample, {}), theirs.get(sample, {})
    both = sorted(a.keys() & b.keys())
    signs = [(a[x] - a[y]) * (b[x] - b[y]) for i, x in enumerate(both) for y in both[:i]]
    return sum(sign > 0 for sign in signs), sum(sign != 0 for sign in signs)


def _first(trace: Iterable[SearchStep]) -> dict[str, str]:
    return {row.sample_id: row.text for row in trace if row.step == 0 and row.chosen}


class Judged(NamedTuple):
    """A sentence with what guides a choice of it."""

    group: str  # its sample
    step: int
    guide: float
    wrong: bool


def judged_sentences(trace: Iterable[SearchStep], truth: Truth) -> list[Judged]:
    """Every candidate that has a guide and names an object; of equal ones in a step the first."""
    judged: dict[tuple[str, int, str], Judged] = {}
    for row in trace:
        guide, is_wrong = guide_of(row), wrong(row.text, truth[row.sample_id])
        if guide is not None and is_wrong is not None:
            judged.setdefault((row.sample_id, row.step, row.text), Judged(row.sample_id, row.step, guide, is_wrong))
    return list(judged.values())


def ranking_aucs(sentences: Iterable[Judged]) -> list[float]:
    """Within each image that has both kinds: the chance that a true sentence has a larger guide than a hallucinated one."""
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for sentence in sentences:
        groups.setdefault(sentence.group, ([], []))[sentence.wrong].append(sentence.guide)
    return [auc(np.array(good), np.array(bad)) for _, (good, bad) in sorted(groups.items()) if good and bad]


def pooled_auc(sentences: Sequence[Judged]) -> float:
    """The same over all images together."""
    good = np.array([sentence.guide for sentence in sentences if not sentence.wrong])
    return auc(good, np.array([sentence.guide for sentence in sentences if sentence.wrong]))


def return_correlation(rows: Sequence[Value]) -> float:
    """Spearman's rank correlation of V with the return that followed; NaN below three sentences."""
    if len(rows) < 3:
        return float("nan")
    return spearman(np.array([row.value for row in rows]), np.array([row.mc_return for row in rows]))
