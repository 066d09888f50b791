"""How far a model's captions moved from the base's captions of the same images, in what nobody trained them for.

A sentence reward knows nothing of style, so fine-tuning on what it likes may make captions longer, poorer in words or
repetitive without any hallucination figure showing it. Word pairs (bigrams) are counted within sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from tasks.core.metrics import Estimate, Ratio, estimate, percentiles, without_interval
from tasks.core.seeds import seed_for
from tasks.core.text import split_sentences, words

DIVERGENCE_DRAWS = 400  # resamples behind the divergence's standard error: more change its second digit only
SWAPS = 200  # of the images' captions between the two sets, for what the divergence is by chance


class Caption(NamedTuple):
    """What is counted of one caption."""

    words: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    sentences: int
    repeated: int


class Counts(NamedTuple):
    """Word pairs of many captions as a sparse table; all [M], one entry an image and pair."""

    image: np.ndarray
    pair: np.ndarray
    times: np.ndarray

    def total(self, weights: np.ndarray, size: int) -> np.ndarray:
        """Counts over all images, each weighted: weights [N] -> [size]."""
        return np.bincount(self.pair, weights=weights[self.image] * self.times, minlength=size)


def read_caption(text: str) -> Caption:
    """A caption's words, its word pairs within sentences, and how many sentences repeat an earlier one."""
    sentences = [tuple(words(sentence.text)) for sentence in split_sentences(text)]
    pairs = tuple(pair for sentence in sentences for pair in pairwise(sentence))
    return Caption(
        tuple(word for sentence in sentences for word in sentence),
        pairs,
        len(sentences),
        len(sentences) - len(set(sentences)),
    )


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two count vectors [V], base 2: 0 the same distribution, 1 nothing in common.

    Two empty ones are the same; an empty one has nothing in common with any other.
    """
    if not p.sum() or not q.sum():
        return float(bool(p.sum()) != bool(q.sum()))
    p, q = p / p.sum(), q / q.sum()
    value = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return min(1.0, max(0.0, value))


def drift_figures(
    candidate: Sequence[str], base: Sequence[str], *, draws: np.ndarray, confidence: float = 0.95
) -> dict[str, Estimate]:
    """What moved between two sets of captions of the same images, in the same order.

    Args:
        candidate: captions of the new model, one an image.
        base: captions of the base, at the same places.
        draws: bootstrap resamples of the images, [R, N].
        confidence: of the intervals.

    Returns:
        `length_change` (relative, of the mean length in words), `ngram_drift` (divergence of the word pairs),
        `ngram_drift_chance` (the same if each image's two captions change sides at random: what equal models would show),
        `vocabulary_kept` (share of the candidate's different words that the base used), `shared_pairs` (mean over images of
        the share of different word pairs that both captions have), `distinct_2` (different word pairs over all word pairs) and
        `repetition` (share of sentences that repeat one of the same caption), both also with `_base`. Figures that count
        *different* things over all images have no interval: a resample holds fewer different images, and so fewer of them.

    Raises:
        ValueError: not one caption of each an image, or no words in any caption of the base.
    """
    if len(candidate) != len(base) or not base:
        raise ValueError(f"{len(candidate)} and {len(base)} captions: drift needs the same images, at least one")
    new, old = [read_caption(text) for text in candidate], [read_caption(text) for text in base]
    if not any(caption.words for caption in old):
        raise ValueError("every caption of the base is empty: there is nothing to have drifted from")

    def measured(top: Sequence[float], bottom: Sequence[float]) -> Estimate:
        return estimate(Ratio(np.array(top, float), np.array(bottom, float)), draws=draws, confidence=confidence)

    length = [len(caption.words) for caption in old]
    gained = [len(a.words) - before for a, before in zip(new, length, strict=True)]
    drift, chance = _divergences(new, old, draws, confidence)
    return {
        "length_change": measured(gained, length),
        "ngram_drift": drift,
        "ngram_drift_chance": chance,
        "vocabulary_kept": without_interval(_kept(new, old), len(new)),
        "shared_pairs": measured([_shared(a, b) for a, b in zip(new, old, strict=True)], [1] * len(new)),
        "distinct_2": without_interval(_distinct(new), len(new)),
        "distinct_2_base": without_interval(_distinct(old), len(old)),
        "repetition": measured([caption.repeated for caption in new], [caption.sentences for caption in new]),
        "repetition_base": measured([caption.repeated for caption in old], [caption.sentences for caption in old]),
    }


def beyond(
    figures: Mapping[str, Estimate],
    general: tuple[float, float, float] | None,
    *,
    max_length_change: float | None,
    max_ngram_drift: float | None,
    max_general_drop: float | None,
) -> list[str]:
    """Which bounds a model exceeds, in words; empty: none.

    Length and word pairs are judged by their estimates: both are large effects that the benchmark's images measure well. The
    general benchmark is judged by its interval, as the promotion gate judges recall: a model is within the bound only if
    the interval's lower end is. NaN is not within it.

    Args:
        figures: of `drift_figures`.
        general: (difference, lower end, upper end) of the general benchmark's accuracy, candidate minus base; None: not
            measured.
        max_length_change: largest relative change of the mean length, up or down; None: no bound.
        max_ngram_drift: largest divergence; None: no bound.
        max_general_drop: share of accuracy that may be lost; None: no bound.

    Raises:
        ValueError: a bound on the general benchmark, which was not measured.
    """
    exceeded = []
    length, drift = figures["length_change"].value, figures["ngram_drift"].value
    if max_length_change is not None and not abs(length) <= max_length_change:
        exceeded.append(f"captions are {length:+.1%} in length, at most {max_length_change:.1%} either way")
    if max_ngram_drift is not None and not drift <= max_ngram_drift:
        chance = figures["ngram_drift_chance"].value
        exceeded.append(f"word pairs diverge by {drift:.3f} ({chance:.3f} by chance), at most {max_ngram_drift:.3f}")
    if max_general_drop is not None:
        if general is None:
            raise ValueError("a bound on the general benchmark, but it was not measured")
        diff, low, high = general
        if not low > -max_general_drop:
            interval = f"{diff:+.3f} [{low:+.3f}, {high:+.3f}]"
            exceeded.append(f"general accuracy {interval} may be lower by more than {max_general_drop:.3f}")
    return exceeded


def _entropy(p: np.ndarray) -> float:
    """In bits; [V] -> float."""
    some = p[p > 0]
    return float(-(some * np.log2(some)).sum())


def _kept(new: Sequence[Caption], old: Sequence[Caption]) -> float:
    """Share of the candidate's different words that the base used; 1 if the candidate has no words."""
    used, known = ({word for caption in captions for word in caption.words} for captions in (new, old))
    return len(used & known) / len(used) if used else 1.0


def _shared(a: Caption, b: Caption) -> float:
    """Jaccard overlap of two captions' different word pairs; 1 if neither has any."""
    mine, theirs = set(a.pairs), set(b.pairs)
    return len(mine & theirs) / len(mine | theirs) if mine or theirs else 1.0


def _distinct(captions: Sequence[Caption]) -> float:
    """Different word pairs over all word pairs; 0 if there is none."""
    total = sum(len(caption.pairs) for caption in captions)
    return len({pair for caption in captions for pair in caption.pairs}) / total if total else 0.0


def _divergences(
    new: Sequence[Caption], old: Sequence[Caption], draws: np.ndarray, confidence: float
) -> tuple[Estimate, Estimate]:
    """(the divergence of two sets of captions, what it is if the captions change sides at random).

    Resampling makes a divergence larger than it is (fewer different images), so its interval is the estimate plus and minus a
    multiple of the resamples' standard deviation, cut to [0, 1]; the chance level's is where the swapped ones lie.
    """
    n = len(new)
    index = {pair: i for i, pair in enumerate(sorted({pair for caption in (*new, *old) for pair in caption.pairs}))}
    a, b = _counts(new, index), _counts(old, index)
    size, whole = len(index), np.ones(n)
    value = divergence(a.total(whole, size), b.total(whole, size))
    if n < 2:
        return without_interval(value, n), without_interval(value, n)
    resampled = []
    for draw in draws[:DIVERGENCE_DRAWS]:
        weights = np.bincount(draw, minlength=n).astype(float)
        resampled.append(divergence(a.total(weights, size), b.total(weights, size)))
    swaps = np.random.Generator(np.random.Philox(key=seed_for("drift swaps", n))).integers(0, 2, size=(SWAPS, n))
    swapped = []
    for swap in swaps.astype(float):
        left = a.total(1 - swap, size) + b.total(swap, size)
        right = a.total(swap, size) + b.total(1 - swap, size)
        swapped.append(divergence(left, right))
    spread = float(np.std(resampled, ddof=1))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    low, high = percentiles(np.array(swapped), confidence)
    return (
        Estimate(value, spread, max(0.0, value - half), min(1.0, value + half), n),
        Estimate(float(np.mean(swapped)), float(np.std(swapped, ddof=1)), low, high, n),
    )


def _counts(captions: Sequence[Caption], index: Mapping[tuple[str, str], int]) -> Counts:
    """The captions' word pairs as numbers."""
    entries = [
        (image, index[pair], times)
        for image, caption in enumerate(captions)
        for pair, times in Counter(caption.pairs).items()
    ]
    image, pair, times = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    return Counts(image, pair, times)
