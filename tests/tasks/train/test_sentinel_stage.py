"""SENTINEL's two stages: candidates judged by verdicts that agree, paired, and learned."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from storage import checkpoints, lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Caption, Detection, Image, SearchStep, SentencePair
from tasks.configs.sentinel import ObjectsVerdict, ScoreVerdict, SentinelSettings
from tasks.configs.train import SentinelConfig, switch_method
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.models.object_list import pixel_digest
from tasks.core.models.policy import load_policy
from tasks.core.train.sentence_pairs import trace_steps
from tasks.models.handles import Guide
from tasks.models.loading import load_images
from tasks.models.zero_shot import publish_objects
from tasks.reward.detect import find_objects
from tasks.search.search import CaptionsResult, search
from tasks.stage.quarantine import StageInputError
from tasks.train.pair_sentences import JudgedBy, SentencePairsResult, _Judge, pair_sentences
from tasks.train.sentinel import train_sentinel
from tests.support.small_world import FINETUNE, SEARCH, drawn, policy, scorer, shaped

OBJECTS = SentinelSettings(verdicts=(ObjectsVerdict(),), pairs_per_step=2)
SCORES = SentinelSettings(verdicts=(ScoreVerdict(band=0.1),))
BOTH = SentinelSettings(verdicts=(ObjectsVerdict(), ScoreVerdict(band=0.1)))


@cache
def searched() -> CaptionsResult:
    config = SEARCH.model_copy(update={"strategy": "clip_prm", "candidates": 6, "temperatures": (1.0,)})
    world, guide = drawn(), Guide(scorer(), shaped().margin)
    return search.fn(config, policy(), world.images, world.samples, guide, seed=0)


@cache
def kept() -> dict[str, frozenset[str]]:
    """The objects that each caption names: as a detector's list they make sentences of both kinds, whatever is drawn."""
    rows = lake.read_rows(Caption, searched().captions)
    return {row.image_id: frozenset(mention.object for mention in find_mentions(row.text)) for row in rows}


@cache
def margin() -> float:
    """Half of the candidates score above it."""
    return float(np.median([row.score for row in lake.read_rows(SearchStep, searched().search_trace) if row.score]))


def detector(lists: dict[str, frozenset[str]]) -> ScorerCheckpoint:
    """A detector that finds these objects."""
    rows = [Detection(image_id, name, 1.0) for image_id, names in lists.items() for name in sorted(names)]
    return find_objects.fn(0.5, lake.publish(Detection, rows), scorer(), [drawn().images]).objects


@cache
def of_captions() -> ScorerCheckpoint:
    return detector(kept())


def paired(
    config: SentinelSettings, *sources: ScorerCheckpoint, given: CaptionsResult | None = None
) -> SentencePairsResult:
    given = given or searched()
    judged = JudgedBy(sources, margin())
    return pair_sentences.fn(config, drawn().images, given.captions, given.search_trace, judged)


def rows_of(output: SentencePairsResult) -> list[SentencePair]:
    return lake.read_rows(SentencePair, output.sentence_pairs)


def test_a_detectors_list_parts_true_sentences_from_hallucinated_ones_after_the_same_answer_so_far() -> None:
    output = paired(OBJECTS, of_captions())
    rows = rows_of(output)
    assert len(rows) == output.count > 5
    captions = {row.sample_id: row.text for row in lake.read_rows(Caption, searched().captions)}
    trace = {(r.sample_id, r.step, r.candidate): r.text for r in lake.read_rows(SearchStep, searched().search_trace)}
    for row in rows:
        there = kept()[row.image_id]
        assert {mention.object for mention in find_mentions(row.chosen_text)} <= there
        assert {mention.object for mention in find_mentions(row.rejected_text)} - there
        assert captions[row.sample_id].startswith(row.prefix)
        assert bool(row.prefix) == bool(row.step)
        assert trace[row.sample_id, row.step, row.chosen] == row.chosen_text
        assert trace[row.sample_id, row.step, row.rejected] == row.rejected_text
    counters = output.counters
    assert counters["true"] + counters["hallucinated"] + counters["uncertain"] == counters["candidates"]
    assert 0 < output.steps_with_pair <= 1


def test_verdicts_that_disagree_leave_candidates_out() -> None:
    alone, both = paired(OBJECTS, of_captions()).counters, paired(BOTH, of_captions(), scorer()).counters
    assert both["candidates"] == alone["candidates"]
    assert both["uncertain"] > alone["uncertain"]
    contrary = detector({image_id: frozenset({"toaster"}) for image_id in kept()})
    two = SentinelSettings(verdicts=(ObjectsVerdict(), ObjectsVerdict(threshold=0.4)))
    with pytest.raises(StageInputError, match=r"no step has a true and a hallucinated candidate \(.* 0 true"):
        paired(two, of_captions(), contrary)


def test_a_wider_band_leaves_more_out_and_an_unseen_image_all() -> None:
    narrow, wide = (
        paired(SentinelSettings(verdicts=(ScoreVerdict(band=band),)), scorer()).counters for band in (0.0, 0.5)
    )
    assert narrow["uncertain"] == 0 < wide["uncertain"]
    first = rows_of(paired(OBJECTS, of_captions()))[0].image_id
    half = detector({image_id: names for image_id, names in kept().items() if image_id != first})
    assert first not in {row.image_id for row in rows_of(paired(OBJECTS, half))}


def test_a_search_of_whole_answers_is_refused() -> None:
    rows = lake.read_rows(Caption, searched().captions)
    other = [replace(row, text=f"Well. {row.text}") for row in rows]
    given = CaptionsResult(lake.publish(Caption, other), searched().search_trace, counters={})
    with pytest.raises(StageInputError, match=r"set search\.strategy to clip_prm or visvm"):
        paired(OBJECTS, of_captions(), given=given)


def test_a_whole_checkpoint_comes_out_that_prefers_the_true_sentences() -> None:
    pairs = lake.publish(SentencePair, rows_of(paired(OBJECTS, of_captions()))[:6])
    config = switch_method(FINETUNE, SentinelConfig, batch_size=4, epochs=3.0)
    world = drawn()

    def trained(table: Table[SentencePair]):
        return train_sentinel.fn(config, policy(), world.images, world.samples, table, seed=0)

    output = trained(pairs)
    assert output.counters == {"pairs": 6, "untrainable": 0}
    assert output.figures["margin_last"] > output.figures["margin_first"]
    folder = checkpoints.folder(output.policy)
    assert "| finetune.method | sentinel |" in (folder / "README.md").read_text()
    assert load_policy(folder, digest="").model is not None


def test_a_reward_that_reads_the_answer_so_far_judges_after_it() -> None:
    (image_id,) = sorted(row.image_id for row in lake.read_rows(Image, drawn().images))[:1]
    picture = load_images(drawn().images, [image_id])[image_id]
    adds = publish_objects("completeness", {pixel_digest(picture): {"dog", "cat"}})
    blank = dict.fromkeys(("score", "shaped", "value", "stop", "phase")) | {"sample_id": "s", "strategy": "clip_prm"}
    proposed = [(0, 0, "A dog sits.", True), (1, 0, "A dog runs.", False), (1, 1, "A cat runs.", True)]
    trace = [
        SearchStep(**blank, step=step, candidate=index, temperature=0.0, text=text, chosen=chosen, ended=False)
        for step, index, text, chosen in proposed
    ]
    steps = [(image_id, step) for step in trace_steps("A dog sits. A cat runs.", trace)]
    judge = _Judge(SentinelSettings(verdicts=(ScoreVerdict(band=0),)), JudgedBy((adds,), 0.25))
    judge.score(steps, drawn().images)
    verdicts = {
        row.text: judge.verdicts_of(image_id, step.prefix)(row).value for _, step in steps for row in step.candidates
    }
    # The dog was named already: it adds nothing.
    assert verdicts == {"A dog sits.": "true", "A dog runs.": "hallucinated", "A cat runs.": "true"}
