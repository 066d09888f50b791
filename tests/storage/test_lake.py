"""Tables: the same rows have the same digest; what does not fit is refused by name."""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import lake
from storage.artifacts import ArtifactRef
from storage.lake import AnnotationsForbidden, RowError, WrongArtifact, annotations_allowed
from storage.objects import ArtifactDamaged, ArtifactMissing
from storage.schema import (
    ROW_TYPES,
    Annotation,
    Answer,
    Box,
    Image,
    ImageFile,
    Reward,
    Sample,
    SearchStep,
    arrow_schema,
)

pytestmark = pytest.mark.usefixtures("home")

SAMPLES = [Sample(f"s{i:02d}", f"i{i}", "Describe.", "train") for i in range(20)]
STEP = SearchStep("s", "visvm", 0, 0, 0.5, "A cat.", None, None, 0.25, True, False, None)


def test_order_of_rows_does_not_change_the_digest() -> None:
    shuffled = random.Random(0).sample(SAMPLES, len(SAMPLES))
    assert lake.publish(Sample, shuffled) == lake.publish(Sample, iter(SAMPLES))


def test_rows_come_back_sorted_and_equal() -> None:
    ref = lake.publish(Sample, SAMPLES[::-1])
    assert (ref.kind, ref.rows, ref.schema_version) == ("samples", 20, 1)
    assert lake.read_rows(Sample, ref) == SAMPLES
    assert lake.read(ref).schema.equals(arrow_schema(Sample), check_metadata=True)


def test_nested_rows_and_none_come_back_as_they_were() -> None:
    images = [Image(f"i{i}", ImageFile(b"\x00png", None), 2, 3, "0", "demo", "train") for i in range(3)]
    assert lake.read_rows(Image, lake.publish(Image, images)) == images
    boxed = [Annotation("i0", ["cat"], [], [Box("cat", 0.0, 1.0, 2.5, 3.0)]), Annotation("i1", [], ["A."], [])]
    ref = lake.publish(Annotation, boxed)
    with annotations_allowed():
        assert lake.read_rows(Annotation, ref) == boxed
    assert lake.read_rows(SearchStep, lake.publish(SearchStep, [STEP])) == [STEP]


@pytest.mark.parametrize("row_type", ROW_TYPES.values(), ids=lambda t: t.table)
def test_an_empty_table_is_a_table(row_type) -> None:
    ref = lake.publish(row_type, [])
    assert ref.rows == 0
    with annotations_allowed():
        assert lake.read_rows(row_type, ref) == []


@pytest.mark.parametrize("row_type", [Annotation, Answer])
def test_what_is_true_can_be_read_by_evaluation_only(row_type) -> None:
    with pytest.raises(lake.AnnotationsForbidden, match="only stages declared"):
        lake.read_rows(row_type, lake.publish(row_type, []))


def test_merged_shards_are_the_table_however_many_there_are() -> None:
    whole = lake.publish(Sample, SAMPLES)
    for cuts in ([0, 20], [0, 7, 20], [0, 1, 2, 20], [0, 0, 20]):
        shards = [lake.publish(Sample, SAMPLES[a:b]) for a, b in itertools.pairwise(cuts)]
        assert lake.merge(shards[::-1]) == whole


def test_images_are_in_small_row_groups_and_readable_by_id() -> None:
    rows = [Image(f"i{i:03d}", ImageFile(b"x", None), 1, 1, "0", "s", "train") for i in range(250)]
    ref = lake.publish(Image, rows)
    assert pq.ParquetFile(ref.path).num_row_groups == 3
    assert lake.read_rows(Image, ref, keys={"i007", "i200", "none"}) == [rows[7], rows[200]]


@pytest.mark.parametrize(
    ("row_type", "rows", "words"),
    [
        (Sample, [SAMPLES[0], SAMPLES[1], SAMPLES[0]], "samples: 1 rows repeat a primary key.*'s00'"),
        (Sample, [replace(SAMPLES[0], prompt=3)], "samples.prompt, row 0: 3 is not a string"),
        (Sample, [SAMPLES[0], replace(SAMPLES[1], prompt=None)], "samples.prompt, row 1: None"),
        (Sample, [SAMPLES[0], STEP], "samples, row 1: a SearchStep, not a Sample"),
        (SearchStep, [replace(STEP, step="one")], "search_trace.step, row 0: 'one'"),
        (Sample, pa.table({"sample_id": ["a"]}), "samples: column image_id is missing"),
        (Sample, pa.table({"sample_id": ["a"], "x": [1]}), "samples has no column x; it has sample_id"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(row_type, rows, words: str) -> None:
    with pytest.raises(RowError, match=words):
        lake.publish(row_type, rows)


def test_a_refused_table_leaves_nothing_behind(home) -> None:
    with pytest.raises(RowError):
        lake.publish(Sample, [SAMPLES[0], SAMPLES[0]])
    assert not [path for path in home.rglob("*") if path.is_file() and path.name != "store"]


def test_a_key_of_two_columns_repeats_only_if_both_do() -> None:
    reward = Reward("r", "s", 0, "A.", 0, 2, False, 0.1, 0.1, "c", False, None)
    lake.publish(Reward, [reward, replace(reward, step=1), replace(reward, rollout_id="q")])
    with pytest.raises(RowError, match="'step': 0"):
        lake.publish(Reward, [reward, replace(reward, sentence="B.")])


def test_the_wrong_reference_is_refused_with_what_was_needed() -> None:
    ref = lake.publish(Sample, SAMPLES)
    with pytest.raises(WrongArtifact, match=r"got samples \w+, but images was needed"):
        lake.read_rows(Image, ref)
    with pytest.raises(WrongArtifact, match="schema version 0, this code needs 1; run again"):
        lake.read(ref.model_copy(update={"schema_version": 0}))
    with pytest.raises(WrongArtifact, match="a checkpoint"):
        lake.read(ArtifactRef(kind="policy", digest="0" * 64))
    with pytest.raises(WrongArtifact, match="nothing to read"):
        lake.read([])


def test_annotations_are_read_in_evaluation_only() -> None:
    ref = lake.publish(Annotation, [Annotation("i0", ["cat"], [], [])])
    for read in (lambda: lake.read(ref), lambda: lake.read_rows(Annotation, [ref])):
        with pytest.raises(AnnotationsForbidden, match="only stages declared"):
            read()
        with annotations_allowed():
            read()


def test_a_missing_file_says_what_to_do() -> None:
    ref = lake.publish(Sample, SAMPLES)
    ref.path.unlink()
    with pytest.raises(ArtifactMissing, match="run again"):
        lake.read(ref)
    with pytest.raises(ArtifactMissing):
        ref.verify()


def test_a_copied_store_is_whole_and_sealed_again(home, tmp_path, monkeypatch) -> None:
    ref = lake.publish(Sample, SAMPLES)
    data, first = ref.path.read_bytes(), ref.path
    monkeypatch.setenv("VISLOOP_HOME", str(tmp_path / "elsewhere"))
    ref.path.parent.mkdir(parents=True)
    ref.path.write_bytes(data)
    assert ref.path != first
    ref.verify()
    assert ref.path.stat().st_mtime == first.stat().st_mtime


def test_a_flipped_bit_is_noticed_when_every_byte_is_hashed(home) -> None:
    ref = lake.publish(Sample, SAMPLES)
    stat, data = ref.path.stat(), bytearray(ref.path.read_bytes())
    data[60] ^= 1
    ref.path.chmod(0o644)
    ref.path.write_bytes(data)
    os.utime(ref.path, (stat.st_mtime, stat.st_mtime))  # the disk did it: no write, the seal is unbroken
    ref.verify()
    with pytest.raises(ArtifactDamaged):
        ref.verify(full=True)
