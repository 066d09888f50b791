"""What a search's trace shows of its choices: read beside CHAIR to see why one strategy is before another.

A sentence is hallucinated if it mentions an object that is not in the image. Annotations are read here, by the benchmark, only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Caption, SearchStep
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import grouped_auc
from tasks.core.text import split_sentences
from tasks.search.search import CaptionsResult


def trace_summary(searched: CaptionsResult, annotations: Table[Annotation]) -> dict[str, Any]:
    """What one search did, over all its captions.

    sentences: a caption. stops: reason -> share of captions. proposed, said: the share of hallucinated ones among the sentences
    of all candidates, and among those of the captions. tells: of value and score, how well they separate true from
    hallucinated candidate sentences of one image (mean AUC; None: not in the trace). disagree: of the steps with two
    candidates or more that have both, the share whose best by V is not the best by score; score_lost: what it lacks in score
    there. refined: what became of ViMaR's sentences (kept, replaced, dropped: shares); missed: the hallucinated share of
    those kept.
    """
    captions = lake.read_rows(Caption, searched.captions)
    with lake.annotations_allowed():
        rows = lake.read_rows(Annotation, annotations)
    known = {row.image_id: true_objects(row.objects, row.captions) for row in rows}
    objects = {row.sample_id: known[row.image_id] for row in captions}
    steps = lake.read_rows(SearchStep, searched.search_trace)
    stops = Counter(row.stop_reason for row in captions)
    chosen = [(row.sample_id, sentence.text) for row in captions for sentence in split_sentences(row.text)]
    proposed = [(row.sample_id, sentence.text) for row in steps for sentence in split_sentences(row.text)]
    lost = list(_score_lost(steps))
    return {
        "sentences": len(chosen) / len(captions),
        "stops": {reason: count / len(captions) for reason, count in stops.most_common()},
        "proposed": _hallucinated(proposed, objects),
        "said": _hallucinated(chosen, objects),
        "tells": {guide: _separation(steps, guide, objects) for guide in ("value", "score")},
        "disagree": _mean([gap > 0 for gap in lost]),
        "score_lost": _mean([gap for gap in lost if gap > 0]),
        **_refined(steps, objects),
    }


def in_words(figures: dict[str, Any]) -> str:
    """A summary as one line."""
    parts = [f"{figures['sentences']:.1f} sentences; ends: "]
    parts[0] += ", ".join(f"{reason} {share:.0%}" for reason, share in list(figures["stops"].items())[:4])
    parts.append(
        f"hallucinated: {figures['proposed']:.1%} of the sentences proposed, {figures['said']:.1%} of those said"
    )
    separation = [
        f"{'V' if guide == 'value' else 'score'} {auc:.3f}"
        for guide, auc in figures["tells"].items()
        if auc is not None
    ]
    if separation:
        parts.append(f"AUC true against hallucinated within an image: {', '.join(separation)}")
    if figures["disagree"] is not None:
        lost = f", which costs {figures['score_lost']:.3f} of score" if figures["score_lost"] is not None else ""
        parts.append(f"V's best is not the score's in {figures['disagree']:.0%} of the steps{lost}")
    if figures["refined"]:
        shares = ", ".join(f"{share:.0%} {what}" for what, share in figures["refined"].items())
        parts.append(f"the answer's sentences: {shares}; of those kept {figures['missed']:.1%} hallucinated")
    return "; ".join(parts)


def _refined(steps: Sequence[SearchStep], objects: dict[str, set[str]]) -> dict[str, Any]:
    """Candidate 0 of a step is the sentence under refinement; it is chosen, another candidate is, or none."""
    fates: Counter[str] = Counter()
    kept = []
    for _, group in groupby((row for row in steps if row.phase == "refine"), key=_step):
        rows = list(group)
        chosen = [row.candidate for row in rows if row.chosen]
        fates["dropped" if not chosen else "kept" if chosen == [0] else "replaced"] += 1
        if chosen == [0]:
            kept.append((rows[0].sample_id, rows[0].text))
    total = sum(fates.values())
    refined = {what: fates[what] / total for what in ("kept", "replaced", "dropped")} if total else {}
    return {"refined": refined, "missed": _hallucinated(kept, objects)}


def _separation(steps: Sequence[SearchStep], guide: str, objects: dict[str, set[str]]) -> float | None:
    """Mean within-image AUC of a guide over the candidates that are one sentence and name an object."""
    groups: dict[str, tuple[list[float], list[float]]] = {}
    guided = {(row.sample_id, row.text, getattr(row, guide)) for row in steps if getattr(row, guide) is not None}
    for sample, text, value in sorted(guided):
        mentioned = {mention.object for mention in find_mentions(text)}
        if mentioned and len(split_sentences(text)) == 1:
            groups.setdefault(sample, ([], []))[not mentioned <= objects[sample]].append(value)
    _, aucs = grouped_auc({sample: (np.array(good), np.array(bad)) for sample, (good, bad) in groups.items()})
    return _mean(aucs)


def _hallucinated(sentences: Iterable[tuple[str, str]], objects: dict[str, set[str]]) -> float:
    """The share of (sample, sentence) pairs that name an object that is not in the image."""
    wrong = [
        any(mention.object not in objects[sample] for mention in find_mentions(text)) for sample, text in sentences
    ]
    return sum(wrong) / len(wrong) if wrong else 0.0


def _score_lost(rows: Sequence[SearchStep]) -> Iterator[float]:
    """For each step of two candidates or more with score and value: what the best by V lacks in score."""
    for _, group in groupby(rows, key=_step):
        both = [(row.value, row.score) for row in group if row.value is not None and row.score is not None]
        if len(both) > 1:
            yield max(score for _, score in both) - max(both)[1]


def _step(row: SearchStep) -> tuple[str, int]:
    return row.sample_id, row.step


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
