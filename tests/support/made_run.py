"""A run made of invented rows, published as a real one would be: small, quick, with every table the report reads."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from flows.profiles.loading import load_profile
from storage import lake, runs
from storage.schema import (
    Annotation,
    Comparison,
    Decision,
    Image,
    ImageFile,
    Metric,
    Quarantined,
    Reward,
    Row,
    Sample,
    Score,
    StageRun,
    Value,
)

OBJECTS = ("dog", "bicycle", "person", "umbrella", "cat", "pizza", "chair", "car")
SUBJECTS = (("base", "greedy", 0.30), ("base", "visvm", 0.10), ("round-1", "greedy", 0.14), ("round-2", "greedy", 0.13))
IMAGES = 16
SCRIPT = '<script>document.title = "attacked"</script>'


def make_run(status: str = "completed") -> str:
    """Publish an invented run of two rounds; returns its id."""
    draw = np.random.default_rng(0)
    profile = load_profile("demo", ["seed=7"])
    run_id = runs.start_run(profile.name, profile.model_dump_json())
    pictures, truth, samples = _images(draw)
    _record(run_id, 0, "sample", [(Image, pictures), (Annotation, truth), (Sample, samples)])
    _record(
        run_id, 0, "evaluate", [(Score, _scores(samples, truth, draw, SUBJECTS[:2])), (Metric, _metrics(SUBJECTS[:2]))]
    )
    for number, subject in enumerate(SUBJECTS[2:], 1):
        rewards, values = _rewards(samples, draw)
        refused = [
            Quarantined("sample", f"broken-{i}.jpg", "unreadable", f"image file is truncated {SCRIPT}")
            for i in range(2)
        ]
        _record(run_id, number, "sample", [(Quarantined, refused)])
        for shard in range(2):
            _record(run_id, number, "rollout", [], shard=shard, cached=shard == 0)
        _record(run_id, number, "shape_rewards", [(Reward, rewards)])
        _record(run_id, number, "train_value", [(Value, values)])
        compared = [Comparison(subject[0], "greedy", "base", "greedy", "chair", m, d, d - 0.03, d + 0.03, 0.001, IMAGES)
                    for m, d in (("chair_s", -0.3), ("chair_i", -0.16), ("recall", 0.0), ("length", -6.0))]  # fmt: skip
        verdict = Decision(
            subject[0], "base", number == 1, f"{subject[0]} against base: chair_i -0.160 [-0.190, -0.130]"
        )
        _record(
            run_id,
            number,
            "evaluate",
            [(Score, _scores(samples, truth, draw, [subject])), (Metric, _metrics([subject]))],
        )
        _record(run_id, number, "promote", [(Comparison, compared), (Decision, [verdict])], seconds=0.1)
    runs.finish_run(run_id, status, rounds=2, champion="round-1", message="all rounds done")
    return run_id


def _record(
    run_id: str, number: int, stage: str, tables: Iterable[tuple[type[Row], Sequence[Any]]], *,
    shard: int | None = None, cached: bool = False, seconds: float = 12.5,
) -> None:  # fmt: skip
    """Publish tables as the outputs of one stage."""
    refs = {row_type.table: lake.publish(row_type, rows) for row_type, rows in tables}
    outputs = json.dumps({name: ref.model_dump() for name, ref in refs.items()})
    key = hashlib.sha256(f"{run_id}{number}{stage}{shard}{outputs}".encode()).hexdigest()
    counters = json.dumps({"decode_tokens": 12345.0, "vision_encodes": 300.0})
    total = sum(ref.rows or 0 for ref in refs.values())
    runs.record_stage(StageRun(run_id, number, stage, "", shard, key, key, outputs, cached, runs.now(), seconds, total,
                               counters, "{}", key))  # fmt: skip


def _images(draw: np.random.Generator) -> tuple[list[Image], list[Annotation], list[Sample]]:
    """Coloured pictures, what is in them, and one prompt each."""
    pictures, truth, samples = [], [], []
    for i in range(IMAGES):
        picture = Picture.new("RGB", (96, 96), tuple(int(c) for c in draw.integers(120, 250, 3)))
        ImageDraw.Draw(picture).ellipse((20, 24, 60, 70), fill=tuple(int(c) for c in draw.integers(0, 200, 3)))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        objects = sorted(str(name) for name in draw.choice(OBJECTS, 3, replace=False))
        pictures.append(
            Image(f"img-{i}", ImageFile(buffer.getvalue(), f"img-{i}.png"), 96, 96, digest, "demo/test", "test")
        )
        truth.append(Annotation(f"img-{i}", objects, [], []))
        sample_id = hashlib.sha256(f"{i}".encode()).hexdigest()[:16]
        samples.append(Sample(sample_id, f"img-{i}", "Describe the following image.", "test"))
    return pictures, truth, samples


def _scores(
    samples: Sequence[Sample],
    truth: Sequence[Annotation],
    draw: np.random.Generator,
    subjects: Iterable[tuple[str, str, float]],
) -> list[Score]:
    """Captions with mentions, a share of them hallucinated."""
    scores = []
    for subject, decoding, share in subjects:
        for sample, known in zip(samples, truth, strict=True):
            absent = [name for name in OBJECTS if name not in known.objects]
            mentioned = [*known.objects, *[name for name in absent if draw.random() < share]]
            caption, mentions = "This picture shows", []
            for name in mentioned:
                start = len(caption) + 3
                caption += f" a {name} in the scene."
                mentions.append({"text": name, "object": name, "start": start, "end": start + len(name),
                                 "hallucinated": name in absent})  # fmt: skip
            caption += f" A quiet place {SCRIPT}."
            detail = json.dumps({"caption": caption, "mentions": mentions})
            scores.append(
                Score(subject, decoding, "chair", sample.sample_id, "mentioned", float(len(mentions)), detail)
            )
            false = sum(m["hallucinated"] for m in mentions)
            scores.append(Score(subject, decoding, "chair", sample.sample_id, "hallucinated", float(false), None))
    return scores


def _metrics(subjects: Iterable[tuple[str, str, float]]) -> list[Metric]:
    """Figures with intervals, and the health of the base."""
    metrics = []
    for subject, decoding, share in subjects:
        for metric, value, half in (("chair_s", 2 * share, 0.06), ("chair_i", share, 0.03), ("recall", 0.95, 0.02),
                                    ("length", 30 + 40 * share, 1.5)):  # fmt: skip
            metrics.append(
                Metric(subject, decoding, "chair", metric, value, half / 2, value - half, value + half, IMAGES)
            )
        if (subject, decoding) == ("base", "greedy"):
            metrics.append(Metric("base", "rollouts", "health", "scorer_auc", 0.97, 0.01, 0.95, 0.99, IMAGES))
    return metrics


def _rewards(samples: Sequence[Sample], draw: np.random.Generator) -> tuple[list[Reward], list[Value]]:
    """Two groups of scores around a margin of 0.2, and values that roughly follow."""
    rewards, values = [], []
    for sample in samples:
        for k in range(5):
            for step in range(6):
                low = draw.random() < 0.25
                score = float(draw.normal(0.08 if low else 0.3, 0.04))
                shaped = score if score >= 0.2 else -(0.2 - score)
                rollout = f"{sample.sample_id}-t{k}"
                rewards.append(
                    Reward(rollout, sample.sample_id, step, "A dog.", 0, 6, step == 5, score, shaped, "s", False, None)
                )
                value = shaped + float(draw.normal(0, 0.05))
                values.append(Value(rollout, step, shaped, value, shaped, shaped, sample.image_id, rollout, 0.9))
    return rewards, values
