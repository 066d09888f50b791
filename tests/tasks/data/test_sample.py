"""Sample: rows in are rows out and refusals; draws by seed; nothing true is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import lake
from storage.artifacts import PolicyCheckpoint
from storage.checkpoints import import_checkpoint
from storage.images import decode
from storage.schema import Image, Quarantined, Sample
from tasks.configs.data import CocoSource, FolderSource, SampleConfig
from tasks.data.sample import Draw, annotate, open_source, sample
from tasks.models.handles import PolicyHandle
from tasks.stage.quarantine import StageInputError, TooManyQuarantined
from tests.support.small_world import IMAGES, drawn, samples, source
from tests.support.tiny_models import tiny
from tests.support.wild_folder import GOOD, picture, wild_folder


def draw_folder(root: Path, **options: object):
    config = SampleConfig(val_share=0.3, **options)
    return sample.fn(config, open_source(FolderSource(root=str(root))), Draw(images=GOOD + 6, seed=0))


def test_every_drawn_image_is_a_row_with_one_prompt() -> None:
    output = drawn()
    images, sampled = lake.read_rows(Image, output.images), samples()
    assert len(images) == len(sampled) == IMAGES
    assert {image.image_id for image in images} == {sample.image_id for sample in sampled}
    assert output.quarantine.rows == 0
    assert {sample.prompt for sample in sampled} <= set(SampleConfig().prompts)
    assert len({sample.prompt for sample in sampled}) > 1
    assert sum(sample.split == "val" for sample in sampled) == round(0.3 * IMAGES)


def test_bad_files_are_in_quarantine_with_a_reason_and_odd_ones_are_not(tmp_path: Path) -> None:
    output = draw_folder(wild_folder(tmp_path / "wild"), max_quarantined=0.5)
    refused = {row.item_id: row for row in lake.read_rows(Quarantined, output.quarantine)}
    assert {name: row.reason for name, row in refused.items()} == {
        "truncated.jpg": "unreadable",
        "text.png": "unreadable",
        "dot.png": "too_small",
        "huge.png": "too_large",
    }
    assert all(row.detail for row in refused.values())
    images = {row.image_id: row for row in lake.read_rows(Image, output.images)}
    assert len(images) + len(refused) == output.counters["drawn"] == GOOD + 6
    assert {"print.jpg", "moving.gif"} <= images.keys()
    assert all(decode(image.image).mode == "RGB" for image in images.values())
    assert {row.image_id for row in lake.read_rows(Sample, output.samples)} == images.keys()


def test_too_many_bad_files_fail_with_an_error_that_names_the_table(tmp_path: Path) -> None:
    with pytest.raises(
        TooManyQuarantined, match=r"sample: 4 of 20 images were refused \(20%; at most 5% may be\)"
    ) as e:
        draw_folder(wild_folder(tmp_path / "wild"))
    assert 'visloop query "SELECT reason, count(*) FROM quarantine' in str(e.value)


def test_limits_are_the_configs(tmp_path: Path) -> None:
    output = draw_folder(wild_folder(tmp_path / "wild"), max_quarantined=1, min_side=1, max_megapixels=61)
    assert {row.item_id for row in lake.read_rows(Quarantined, output.quarantine)} == {"truncated.jpg", "text.png"}


def test_rounds_draw_other_images_and_a_seed_draws_the_same() -> None:
    def ids(seed: int, number: int) -> set[str]:
        output = sample.fn(SampleConfig(), source(), Draw(images=20, seed=seed, round_index=number))
        return {row.image_id for row in lake.read_rows(Sample, output.samples)}

    assert ids(0, 0) == ids(0, 0)
    assert ids(0, 0) != ids(1, 0)
    assert not ids(0, 0) & ids(0, 1)
    assert {sample.image_id for sample in samples()} <= ids(0, 0)


def test_the_benchmark_is_all_test() -> None:
    assert {sample.split for sample in samples(benchmark=True)} == {"test"}


def test_a_smaller_folder_is_drawn_as_a_whole_but_a_smaller_benchmark_is_an_error() -> None:
    output = sample.fn(SampleConfig(), source(), Draw(images=500, seed=0))
    assert output.samples.rows == 42
    with pytest.raises(StageInputError, match=r"demo 60 seed 0 test: 12 images, 13 needed"):
        sample.fn(SampleConfig(), source("test"), Draw(images=13, seed=0, benchmark=True))


def test_a_changed_file_changes_the_source(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    before = open_source(FolderSource(root=str(tmp_path)))
    assert open_source(FolderSource(root=str(tmp_path))) == before
    picture(1, (80, 80)).save(tmp_path / "a.png")
    assert open_source(FolderSource(root=str(tmp_path))).fingerprint != before.fingerprint


def test_empty_sources_are_errors_that_name_the_setting(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StageInputError, match=r"no images there .* check data\.train\.root"):
            open_source(FolderSource(root=str(root)))
    with pytest.raises(StageInputError, match=r"no annotations/instances_val2017\.json"):
        open_source(CocoSource(root=str(tmp_path), split="val2017"))


def test_a_folder_has_no_truth_to_annotate_with(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(StageInputError, match=r"has no annotations; set data\.benchmark"):
        annotate.fn(open_source(FolderSource(root=str(tmp_path))), drawn().images)


def test_an_image_that_the_policys_processor_refuses_is_in_quarantine_with_its_reason(tmp_path: Path) -> None:
    policy = tiny("qwen2_vl")
    policy.model.save_pretrained(tmp_path / "policy")
    policy.processor.save_pretrained(tmp_path / "policy")
    handle = PolicyHandle(import_checkpoint(PolicyCheckpoint, str(tmp_path / "policy")))
    root = tmp_path / "images"
    root.mkdir()
    for index, size in enumerate([(60, 40), (8, 2000), (40, 40)]):
        picture(index, size).save(root / f"{index}.png")
    config, drawn_from = SampleConfig(val_share=0.3, max_quarantined=0.5), open_source(FolderSource(root=str(root)))
    output = sample.fn(config, drawn_from, Draw(images=3, seed=0), handle)
    (refused,) = lake.read_rows(Quarantined, output.quarantine)
    assert (refused.item_id, refused.reason) == ("1.png", "processor")
    assert "8x2000 pixels" in refused.detail and "aspect ratio" in refused.detail
    assert {row.image_id for row in lake.read_rows(Image, output.images)} == {"0.png", "2.png"}
    everything = sample.fn(config, drawn_from, Draw(images=3, seed=0))
    assert everything.quarantine.rows == 0, "without a policy no image is refused by one"


@pytest.mark.parametrize("prompts", [["<image>"], ["Describe it.", "<image>\n"]])
def test_a_prompt_of_placeholders_only_is_refused(prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="asks nothing"):
        SampleConfig(prompts=tuple(prompts))


def test_a_prompts_placeholder_is_left_out_of_the_samples(tmp_path: Path) -> None:
    config = SampleConfig(val_share=0.3, prompts=("<image>\nDescribe the image.",))
    output = sample.fn(config, source(), Draw(images=4, seed=0))
    assert {row.prompt for row in lake.read_rows(Sample, output.samples)} == {"Describe the image."}
