"""Evaluate: figures of hand-made captions, pairs of the same items, the health check; and no other stage reads the truth."""

from __future__ import annotations

import inspect
import json

import pytest

from storage import lake
from storage.lake import AnnotationsForbidden
from storage.schema import Annotation, Caption, Comparison, Metric, Reward, Score
from tasks.configs.evaluate import EvaluateConfig, HealthConfig
from tasks.data import sample
from tasks.evaluate import promote
from tasks.evaluate.evaluate import compare, evaluate
from tasks.evaluate.health import health
from tasks.reward import combine, score, shape_rewards
from tasks.reward import tokens as token_rewards
from tasks.rollout import reference as reference_answers
from tasks.rollout import rollout
from tasks.search import search
from tasks.stage import stage as caching
from tasks.stage.quarantine import StageInputError
from tasks.train import dpo as train_dpo
from tasks.train import finetune, prefer
from tasks.train import fisao as train_fisao
from tasks.train import grpo as train_grpo
from tasks.value import train_value
from tests.support.small_world import captions_of, drawn, samples, truth

CONFIG = EvaluateConfig(bootstrap=200)
ABSENT = "There is a toaster."


def annotations() -> dict[str, Annotation]:
    with lake.annotations_allowed():
        return {row.image_id: row for row in lake.read_rows(Annotation, truth())}


def truthful() -> list[str]:
    """For every sample a caption that names all that is there."""
    return [
        " ".join(f"There is a {name}." for name in annotations()[sample.image_id].objects) for sample in samples(True)
    ]


def measured(texts: list[str], subject: str = "base"):
    with lake.annotations_allowed():
        return evaluate.fn(
            CONFIG, captions_of(texts), drawn(True).samples, truth(), subject=subject, decoding="greedy",
        )  # fmt: skip


def test_the_truth_has_chair_zero_and_recall_one() -> None:
    facts = measured(truthful()).figures
    assert (facts["chair_s"], facts["chair_i"], facts["recall"]) == (0, 0, 1)
    assert facts["length"] > 4


def test_figures_of_captions_with_known_hallucinations() -> None:
    texts = [f"{text} {ABSENT}" if i % 2 else text for i, text in enumerate(truthful())]
    output = measured(texts)
    mentions = sum(len(annotation.objects) for annotation in annotations().values())
    assert output.figures["chair_s"] == 0.5
    assert output.figures["chair_i"] == pytest.approx(4 / (mentions + 4))
    assert output.figures["recall"] == 1
    for row in lake.read_rows(Metric, output.metrics):
        assert row.ci_low <= row.value <= row.ci_high
        assert (row.subject, row.decoding, row.benchmark, row.n) == ("base", "greedy", "chair", 8)


def test_every_item_has_its_counts_and_where_the_lie_stands() -> None:
    output = measured([f"{ABSENT} {text}" for text in truthful()])
    rows = lake.read_rows(Score, output.scores)
    assert len(rows) == 5 * 8
    for row in rows:
        assert (row.detail is not None) == (row.metric == "mentioned")
        if row.detail:
            detail = json.loads(row.detail)
            (wrong,) = [mention for mention in detail["mentions"] if mention["hallucinated"]]
            assert detail["caption"][wrong["start"] : wrong["end"]] == wrong["text"] == "toaster"


def test_empty_captions_are_items_too() -> None:
    facts = measured([""] * 8).figures
    assert facts == {"chair_s": 0, "chair_i": 0, "recall": 0, "length": 0}


def test_a_missing_caption_is_an_error_not_a_smaller_n() -> None:
    rows = lake.read_rows(Caption, captions_of(truthful()))[1:]
    with lake.annotations_allowed(), pytest.raises(StageInputError, match="8 samples went in, but 7 came out"):
        evaluate.fn(
            CONFIG, lake.publish(Caption, rows), drawn(True).samples, truth(), subject="x", decoding="greedy",
        )  # fmt: skip


def test_a_difference_is_paired_and_signed() -> None:
    better, worse = measured(truthful(), "round-1"), measured([f"{text} {ABSENT}" for text in truthful()])
    output = compare.fn(CONFIG, better.scores, worse.scores)
    rows = {row.metric: row for row in lake.read_rows(Comparison, output.comparisons)}
    assert (rows["chair_s"].subject_a, rows["chair_s"].subject_b) == ("round-1", "base")
    assert (rows["chair_s"].diff, rows["chair_s"].ci_low, rows["chair_s"].ci_high) == (-1, -1, -1)
    assert rows["recall"].diff == 0
    assert rows["chair_i"].ci_high < 0
    assert rows["length"].diff == -4


def test_other_items_can_not_be_compared() -> None:
    measurement = measured(truthful())
    rows = [row for row in lake.read_rows(Score, measurement.scores) if row.item_id != samples(True)[0].sample_id]
    with pytest.raises(StageInputError, match="8 items, base 7, 7 in common"):
        compare.fn(CONFIG, measurement.scores, lake.publish(Score, rows))


# Health


def judged(by_truth: float, config: HealthConfig | None = None, texts: list[str] | None = None):
    """The verdict on a scorer that gives true sentences `by_truth` more than others."""
    rows = []
    for row in samples(True):
        known = annotations()[row.image_id].objects
        sentences = [f"There is a {name}." for name in known] + [ABSENT, "It is a fine day.", "There is a laptop."]
        for step, text in enumerate(sentences):
            wrong = text == ABSENT or (text == "There is a laptop." and "laptop" not in known)
            score = 0.5 - by_truth * wrong + 0.001 * step
            rows.append(Reward(row.sample_id, row.sample_id, step, text, 0, 1, False, score, None, "s", False, None))
    with lake.annotations_allowed():
        return health.fn(
            config or HealthConfig(), measured(texts or [f"{text} {ABSENT}" for text in truthful()]).metrics,
            lake.publish(Reward, rows), drawn(True).samples, truth(), subject="base",
        )  # fmt: skip


def test_firm_ground_has_no_problems() -> None:
    output = judged(0.3)
    assert output.problems == []
    assert output.scorer_auc == 1
    rows = {row.metric: row for row in lake.read_rows(Metric, output.metrics)}
    assert rows["scorer_auc"].value == rows["scorer_auc_pooled"].value == 1
    assert {row.benchmark for row in rows.values()} == {"health"}


def test_a_scorer_that_does_not_separate_is_a_problem() -> None:
    (problem,) = judged(-0.3).problems
    assert (
        problem == "scorer_auc 0.000 is outside [0.6, 1]: the scorer doesn't separate true from hallucinated sentences"
    )


def test_a_base_without_hallucinations_or_without_recall_is_a_problem() -> None:
    bounds = HealthConfig(min_chair_i=0.05, min_recall=0.3)
    (too_good,) = judged(0.3, bounds, truthful()).problems
    assert too_good.startswith("chair_i 0.000 is outside [0.05, 0.5]")
    too_high, too_low = judged(0.3, bounds, [ABSENT] * 8).problems
    assert too_high.startswith("chair_i 1.000 is outside")
    assert too_low.startswith("recall 0.000 is outside [0.3, 1]: the base misses")


# The guard


def test_no_training_stage_is_given_annotations_and_none_can_open_them() -> None:
    modules = (sample, rollout, score, combine, shape_rewards, reference_answers, train_value, search)
    modules += (finetune, prefer, train_dpo, train_grpo, token_rewards, train_fisao, promote)
    stages = {
        name: var
        for module in modules
        for name, var in vars(module).items()
        if isinstance(var, caching.Stage) and var.fn.__module__ == module.__name__
    }
    allowed = {name for name, stage in stages.items() if stage.reads_annotations}
    assert allowed == {"annotate", "reference_answers", "token_baselines"}
    assert stages.keys() >= {
        "sample",
        "rollout",
        "score",
        "shape_rewards",
        "train_value",
        "search",
        "finetune",
        "promote",
    }
    for name in stages.keys() - allowed:
        takes = [p.name for p in inspect.signature(stages[name].fn).parameters.values() if "Table[" in p.annotation]
        if not takes:
            continue
        arguments = {
            p.name: truth() if "Table[" in p.annotation else None
            for p in inspect.signature(stages[name].fn).parameters.values()
            if p.default is inspect.Parameter.empty
        }
        with pytest.raises(AnnotationsForbidden, match=f"stage {name} got annotations"):
            stages[name](**arguments)
    with pytest.raises(AnnotationsForbidden):
        lake.read(truth())


def test_scores_of_unjudged_sentences_do_not_count() -> None:
    rows = [
        Reward(sample.sample_id, sample.sample_id, 0, ABSENT, 0, 1, True, None, None, "s", False, "not scored")
        for sample in samples(True)
    ]
    with lake.annotations_allowed():
        output = health.fn(
            HealthConfig(), measured(truthful()).metrics, lake.publish(Reward, rows), drawn(True).samples, truth(),
            subject="base",
        )  # fmt: skip
    assert any(problem.startswith("scorer_auc nan") for problem in output.problems)
