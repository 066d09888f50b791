"""What a detector's table or the scorer finds in images, and what it takes for no table."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Detection, Image
from tasks.configs.reward import ObjectsReward
from tasks.core.models.object_list import pixel_digest
from tasks.core.models.token_clip import phrase_of
from tasks.core.seeds import uniforms
from tasks.data.sample import annotate
from tasks.models import zero_shot
from tasks.models.loading import load_images
from tasks.models.scorers import import_reward, import_scorer, load_scorer, load_scores
from tasks.models.zero_shot import KINDS
from tasks.reward.detect import DetectResult, detect, find_objects, read_detections
from tasks.stage.quarantine import StageInputError
from tests.support.small_world import drawn, policy, scorer, source


def images() -> list[Table[Image]]:
    return [drawn().images, drawn(benchmark=True).images]


def ids(at: int = 0) -> list[str]:
    return sorted(row.image_id for row in lake.read_rows(Image, images()[at]))


class Sees:
    """An image-text model whose cosines with what is in an image are 0.3 and with anything else 0, each give or take 0.05.

    The demo's own scorer errs too much to tell what is there.
    """

    def __init__(self) -> None:
        self.kinds = {phrase_of(name): place for place, name in enumerate(KINDS)}
        self.truth: dict[str, set[str]] = {}
        for split, table in zip(("train", "test"), images(), strict=True):
            annotations = annotate.fn(source(split), table).annotations
            with lake.annotations_allowed():
                present = {row.image_id: set(row.objects) for row in lake.read_rows(Annotation, annotations)}
            pictures = load_images(table, list(present))
            self.truth |= {pixel_digest(picture): present[image_id] for image_id, picture in pictures.items()}

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.eye(len(KINDS) + 1)[[self.kinds[text] for text in texts]]

    def embed_images(self, pictures: list[PIL.Image.Image]) -> np.ndarray:
        return np.stack([self._seen(picture) for picture in pictures])

    def _seen(self, picture: PIL.Image.Image) -> np.ndarray:
        digest = pixel_digest(picture)
        draws = np.array(uniforms(len(KINDS), "sees", digest))
        vector = 0.1 * draws - 0.05 + 0.3 * np.array([name in self.truth[digest] for name in KINDS])
        return np.append(vector, np.sqrt(1 - vector @ vector))


@pytest.fixture(autouse=True)
def _sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_shot, "load_scorer", lambda ref: seeing() if ref == scorer() else load_scorer(ref))


@cache
def seeing() -> Sees:
    return Sees()


@cache
def detected() -> DetectResult:
    return detect(ObjectsReward(), scorer(), images())


def csv(folder: Path, text: str) -> str:
    path = folder / "detections.csv"
    path.write_text(text)
    return str(path)


def objects(output: DetectResult, at: int = 0) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {image_id: set() for image_id in ids(at)}
    for row in lake.read_rows(Detection, output.detections):
        if row.image_id in known:
            known[row.image_id].add(row.object)
    return known


def scores_of(
    output: DetectResult, sentences: list[tuple[str, str]], at: int = 0
) -> tuple[list[float | None], Counter[str]]:
    counters: Counter[str] = Counter()
    ref = import_reward(ObjectsReward(), scorer(), policy(), output.objects)
    scores = load_scores(ref, counters)
    return scores.score(load_images(images()[at], [image_id for image_id, _ in sentences]), sentences), counters


def test_zero_shot_detects_the_objects_of_the_demo_worlds_images() -> None:
    annotations = annotate.fn(source("test"), images()[1]).annotations
    with lake.annotations_allowed():
        truth = {row.image_id: set(row.objects) for row in lake.read_rows(Annotation, annotations)}
    got = objects(detected(), at=1)
    hits = sum(len(truth[image_id] & got[image_id]) for image_id in truth)
    assert hits > 0.8 * sum(map(len, got.values())) and hits > 0.8 * sum(map(len, truth.values()))
    assert -0.1 < detected().cosine_threshold < 0.6


def test_confidence_is_a_half_at_the_threshold_and_more_with_the_cosine() -> None:
    from tasks.core.models.scorer import cosines

    model = seeing()
    rows = lake.read_rows(Detection, find_objects.fn(0.0, None, scorer(), images()).detections)
    assert len(rows) == 80 * (len(ids(0)) + len(ids(1)))
    image_id = ids()[0]
    first = [row for row in rows if row.image_id == image_id]
    picture = load_images(images()[0], [image_id])
    texts = model.embed_texts([f"a photo of a {row.object}." for row in first])
    cosine = cosines(model.embed_images(list(picture.values())), texts, [0] * 80)
    above = cosine > detected().cosine_threshold
    confidence = np.array([row.confidence for row in first])
    assert ((confidence > 0.5) == above).all() and 0 < above.sum() < 10
    assert (np.diff(confidence[np.argsort(cosine)]) >= 0).all() and confidence.min() == 0
    assert objects(detected())[image_id] == {row.object for row in first if row.confidence >= 0.5}


def test_a_higher_threshold_finds_less() -> None:
    strict = objects(detect(ObjectsReward(threshold=0.9), scorer(), images()))
    lax = objects(detected())
    assert all(strict[image_id] <= lax[image_id] for image_id in lax)
    assert sum(map(len, strict.values())) < sum(map(len, lax.values()))


def test_sentences_are_scored_by_what_was_detected_in_their_image() -> None:
    here = objects(detected())
    image_id = next(image_id for image_id in here if here[image_id])
    there = sorted(here[image_id])[0]
    scores, counters = scores_of(
        detected(), [(image_id, f"There is a {there}."), (image_id, f"A {there} and a hair drier.")]
    )
    assert scores == [1.0, 0.0] and counters["images_without_detections"] == 0


def test_a_tables_objects_are_the_images(tmp_path: Path) -> None:
    first, second, third = ids()[:3]
    table = csv(
        tmp_path,
        f"image_id,object,confidence\n{first},dog,0.9\n{first},Cat ,0.2\n{second},cup,0.1\n{first},dog,0.4\nother,dog,1\n",
    )
    output = detect(ObjectsReward(table=table), scorer(), images())
    assert lake.read_rows(Detection, output.detections) == [Detection(first, "dog", 0.9)]
    total = len(set(ids(0)) | set(ids(1)))
    assert output.counters == {"images": total, "images_without_detections": total - 2}
    assert output.cosine_threshold is None
    sentences = [(first, "A dog and a cat."), (second, "A cup."), (third, "A dog."), (third, "The sky.")]
    scores, counters = scores_of(output, sentences)
    assert scores == [0.0, -1.0, -1.0, 0.0]
    assert counters["images_without_detections"] == 1  # that of the second has a row, though below the threshold


def test_a_table_without_confidence_is_sure_and_parquet_does_as_well(tmp_path: Path) -> None:
    path = tmp_path / "detections.parquet"
    pq.write_table(pa.table({"object": ["dog"], "image_id": [ids()[0]], "box": [1]}), path)
    by_parquet = detect(ObjectsReward(table=str(path)), scorer(), images())
    table = csv(tmp_path, f"image_id,object\n{ids()[0]},dog\n")
    assert by_parquet == detect(ObjectsReward(table=table), scorer(), images())


def test_another_content_under_the_same_name_is_detected_anew(tmp_path: Path) -> None:
    reward = ObjectsReward(table=csv(tmp_path, f"image_id,object\n{ids()[0]},dog\n"))
    before = detect(reward, scorer(), images())
    assert detect(reward, scorer(), images()) == before
    csv(tmp_path, f"image_id,object\n{ids()[0]},cat\n")
    after = detect(reward, scorer(), images())
    assert objects(after)[ids()[0]] == {"cat"} and after.objects != before.objects


def test_an_id_is_text_though_it_may_look_like_a_number(tmp_path: Path) -> None:
    rows = read_detections(Path(csv(tmp_path, "image_id,object\n000000000139,dog\n")))
    assert rows == [Detection("000000000139", "dog", 1.0)]
    path = tmp_path / "detections.parquet"
    pq.write_table(pa.table({"image_id": [139], "object": ["dog"]}), path)
    assert read_detections(path) == [Detection("139", "dog", 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,object\n1,dgo\n1,sofa\n", "2 objects are none of COCO's 80: 'dgo' (nearest: dog"),
        ("image_id,object\n1,sofa\n", "'sofa' (nearest: couch)"),
        ("image_id,label\n1,dog\n", "['object'] are missing"),
        ("image_id,object,confidence\n1,dog,high\n", "row 1: "),
        ("image_id,object,confidence\n1,dog,nan\n", "want an image_id and a finite confidence"),
        ("image_id,object,confidence\n1,dog,\n", "want an image_id and a finite confidence"),
        ("", "neither Parquet nor CSV that can be read"),
        ("image_id,object\nelsewhere,dog\n", "has none of the run's 24 images: its ids are like ['elsewhere']"),
    ],
)
def test_an_invalid_table_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StageInputError, match=re.escape(message)):
        detect(ObjectsReward(table=csv(tmp_path, text)), scorer(), images())


def test_a_missing_file_or_scorer_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StageInputError, match=r"none\.csv: no such file"):
        detect(ObjectsReward(table=str(tmp_path / "none.csv")), scorer(), images())
    with pytest.raises(StageInputError, match="zero-shot by an image-text model"):
        detect(ObjectsReward(), import_scorer("ViT-B-32/nothing"), images())
