"""The light half of SENTINEL: pairs of a true and a hallucinated next sentence, from the candidates that a search looked at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from storage import checkpoints, lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Caption, Image, SearchStep, SentencePair
from tasks.configs.sentinel import ObjectsVerdict, PluginVerdict, ScoreVerdict, SentinelSettings
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.models.in_context import ScoresInContext, score_after
from tasks.core.models.object_list import pixel_digest
from tasks.core.reward.verdicts import Verdict, agreed, by_objects, by_score
from tasks.core.train.sentence_pairs import NotSentenceBySentence, TraceStep, pairs_of, trace_steps
from tasks.models.loading import load_images
from tasks.models.object_lists import object_lists
from tasks.models.scorers import load_scores
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

_CAPTIONS = 256  # judged together: what is held in memory

Scored = dict[tuple[str, str, str], float | None]  # (image id, answer so far, sentence) -> score


@dataclass(frozen=True)
class JudgedBy:
    """What the verdicts are made with, one reference for each of `SentinelSettings.verdicts`, and the round's margin."""

    sources: tuple[ScorerCheckpoint, ...]  # an object list, the round's reward, or an installed reward
    margin: float


@dataclass(frozen=True)
class SentencePairsResult(StageResult):
    """Pairs of sentences after the same answer so far, the true one first."""

    sentence_pairs: Table[SentencePair]
    count: int
    steps_with_pair: float  # share of the search's steps


@stage()
def pair_sentences(
    config: SentinelSettings,
    images: Table[Image],
    captions: Table[Caption],
    search_trace: Table[SearchStep],
    judged: JudgedBy,
) -> SentencePairsResult:
    """Judge a search's candidates, and pair a step's true ones with its hallucinated ones. No annotation is read.

    Counters: steps, candidates (new sentences), and of these true, hallucinated and uncertain.

    Raises:
        StageInputError: a search that does not grow an answer sentence by sentence, or no step with both kinds.
    """
    trace: dict[str, list[SearchStep]] = defaultdict(list)
    for row in lake.read_rows(SearchStep, search_trace):
        trace[row.sample_id].append(row)
    searched = [caption for caption in lake.read_rows(Caption, captions) if caption.sample_id in trace]
    judge = _Judge(config, judged)
    steps_of = {caption.sample_id: _steps(caption, trace[caption.sample_id]) for caption in searched}
    judge.score([(caption.image_id, step) for caption in searched for step in steps_of[caption.sample_id]], images)
    rows: list[SentencePair] = []
    counters: Counter[str] = Counter({verdict.value: 0 for verdict in Verdict})
    paired_steps = 0
    for caption in searched:
        for step in steps_of[caption.sample_id]:
            verdict_of = judge.verdicts_of(caption.image_id, step.prefix)
            counters.update(verdict_of(row).value for row in step.candidates)
            paired = pairs_of(step, verdict_of, most=config.pairs_per_step)
            paired_steps += bool(paired)
            rows += [
                SentencePair(
                    sample_id=caption.sample_id,
                    image_id=caption.image_id,
                    strategy=caption.strategy,
                    step=step.step,
                    pair=index,
                    prefix=step.prefix,
                    space=step.space,
                    chosen=pair.chosen.candidate,
                    rejected=pair.rejected.candidate,
                    chosen_text=pair.chosen.text,
                    rejected_text=pair.rejected.text,
                )
                for index, pair in enumerate(paired)
            ]
    steps = sum(map(len, steps_of.values()))
    counted = {"steps": steps, "candidates": counters.total(), **counters, **judge.counters}
    if not rows:
        raise StageInputError(_nothing(counted))
    share = paired_steps / steps
    return SentencePairsResult(lake.publish(SentencePair, rows), len(rows), share, counters=counted)


def _nothing(counted: Mapping[str, float]) -> str:
    """Why there is no pair, in a line."""
    return (
        f"no step has a true and a hallucinated candidate ({counted['candidates']:g} candidates in {counted['steps']:g} steps: "
        + ", ".join(f"{counted[verdict.value]:g} {verdict.value}" for verdict in Verdict)
        + "): raise search.candidates or search.temperatures, or give finetune.sentinel.verdicts another source; "
        "see the search_trace table"
    )


def _steps(caption: Caption, rows: Sequence[SearchStep]) -> list[TraceStep]:
    try:
        return list(trace_steps(caption.text, rows))
    except NotSentenceBySentence as error:
        raise StageInputError(
            f"sample {caption.sample_id}: {error}; finetune.method sentinel needs a search that grows an answer sentence by "
            "sentence: set search.strategy to clip_prm or visvm"
        ) from None


class _Judge:
    """The verdicts of all sources on candidates."""

    def __init__(self, config: SentinelSettings, judged: JudgedBy) -> None:
        self.counters: Counter[str] = Counter()
        self._margin = judged.margin
        sources = list(zip(config.verdicts, judged.sources, strict=True))
        self._lists = [
            object_lists(checkpoints.folder(ref)) for each, ref in sources if isinstance(each, ObjectsVerdict)
        ]
        self._scored = [(each, ref) for each, ref in sources if not isinstance(each, ObjectsVerdict)]
        self._scores: list[Scored] = [{} for _ in self._scored]
        self._in_context: list[bool] = []  # whether a source reads the answer so far; else it counts as empty
        self._bounds: list[tuple[float, float]] = []  # hallucinated below, true from
        self._pixels: dict[str, str] = {}

    def score(self, steps: Sequence[tuple[str, TraceStep]], images: Table[Image]) -> None:
        """Score all candidates by the sources that do, each after the answer before it."""
        texts: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        for image_id, step in steps:
            texts[image_id].update(dict.fromkeys((step.prefix, row.text) for row in step.candidates))
        loaded = [load_scores(ref, self.counters) for _, ref in self._scored]
        self._in_context = [isinstance(scores, ScoresInContext) for scores in loaded]
        ids = list(texts)
        with progress("pair_sentences", len(ids), unit="images") as advance:
            for start in range(0, len(ids), _CAPTIONS):
                part = ids[start : start + _CAPTIONS]
                pictures: dict[str, PIL.Image.Image] = load_images(images, part)
                if self._lists:
                    self._pixels |= {image_id: pixel_digest(picture) for image_id, picture in pictures.items()}
                for scores, known, reads in zip(loaded, self._scores, self._in_context, strict=True):
                    items = dict.fromkeys(
                        (image_id, before if reads else "", text)
                        for image_id in part
                        for before, text in texts[image_id]
                    )
                    known.update(zip(items, score_after(scores, pictures, [*items]) if items else [], strict=True))
                    for image_id in part:
                        scores.forget(image_id)
                advance(len(part))
        self._bounds = [
            self._bounds_of(source, known) for (source, _), known in zip(self._scored, self._scores, strict=True)
        ]

    def _bounds_of(self, source: ScoreVerdict | PluginVerdict, known: Scored) -> tuple[float, float]:
        """(hallucinated below, true from) of a source."""
        if isinstance(source, PluginVerdict):
            return source.hallucinated_below, source.true_from
        scores = [score for score in known.values() if score is not None]
        doubt = source.band * float(np.std(scores)) if scores else 0.0
        return self._margin - doubt, self._margin + doubt

    def verdicts_of(self, image_id: str, so_far: str) -> Callable[[SearchStep], Verdict]:
        """What calls a candidate after an answer about an image; the detectors judge together, object by object."""
        detected = [lists.get(self._pixels[image_id]) for lists in self._lists]

        def verdict(row: SearchStep) -> Verdict:
            verdicts = [
                by_score(known[image_id, so_far if reads else "", row.text], hallucinated_below=low, true_from=high)
                for known, reads, (low, high) in zip(self._scores, self._in_context, self._bounds, strict=True)
            ]
            if detected:
                verdicts.append(by_objects([mention.object for mention in find_mentions(row.text)], detected))
            return agreed(verdicts)

        return verdict
