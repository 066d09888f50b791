"""`visloop init`: what it writes is a valid profile that fits; it overwrites nothing, and refuses what it can't know."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.command import app
from flows.profiles.loading import load_profile
from flows.profiles.memory import device_bytes, fits, peaks_of


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photo graphs: mine"  # a space and a colon, which YAML has to quote
    folder.mkdir()
    Image.new("RGB", (1024, 768)).save(folder / "a.png")
    return folder


def init(path: Path, model: str, images: Path, memory: str, *more: str) -> Result:
    arguments = ["init", str(path), "--model", model, "--images", str(images), "--device-memory", memory, *more]
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("memory", ["80GB", "24GB"])
@pytest.mark.parametrize(
    "model",
    [
        "llava-hf/llava-v1.6-mistral-7b-hf", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct",
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "deployments/demo/policy",
    ],
)  # fmt: skip
def test_what_is_written_is_a_profile_that_fits(model: str, memory: str, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    result = init(path, model, photographs, memory)
    assert result.exit_code == 0, result.output
    profile = load_profile(path)
    assert profile.policy.checkpoint.endswith(model) and profile.data.train.root == str(photographs)
    assert fits(peaks_of(profile), device_bytes(memory))
    assert path.read_text().count("#") > 15


def test_a_larger_device_trains_all_weights_and_a_smaller_one_adapters(photographs: Path, tmp_path: Path) -> None:
    trained = {}
    for memory in ("80GB", "24GB"):
        path = tmp_path / f"{memory}.yaml"
        init(path, "Qwen/Qwen2.5-VL-3B-Instruct", photographs, memory)
        trained[memory] = load_profile(path).finetune
    assert trained["80GB"].train == "full" and trained["80GB"].lr == 1e-6
    assert trained["24GB"].train == "lora" and trained["24GB"].lr == 1e-5


def test_nothing_is_written_over_without_force(photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine\n")
    result = init(path, "deployments/demo/policy", photographs, "24GB")
    assert result.exit_code == 2 and "--force" in result.stderr and path.read_text() == "mine\n"
    assert init(path, "deployments/demo/policy", photographs, "24GB", "--force").exit_code == 0
    assert load_profile(path).name == "mine"


@pytest.mark.parametrize(
    ("model", "memory", "more", "message"),
    [
        ("org/unknown", "24GB", (), "hf download org/unknown"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", "8GB", (), "with no setting"),
        ("deployments/demo/policy", "24", (), "80GB or 79.6GiB"),
        ("deployments/demo/policy", "24GB", ("--benchmark", "coco"), "ROOT:SPLIT"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(
    model: str, memory: str, more: tuple[str, ...], message: str, photographs: Path, tmp_path: Path
) -> None:
    result = init(tmp_path / "mine.yaml", model, photographs, memory, *more)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "mine.yaml").exists()


def test_a_coco_root_gives_its_splits(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / "annotations" / f"instances_{split}.json").write_text("{}")
    assert init(tmp_path / "mine.yaml", "deployments/demo/policy", root, "24GB").exit_code == 0
    data = load_profile(tmp_path / "mine.yaml").data
    assert (data.train.kind, data.train.split, data.benchmark.split) == ("coco", "train2017", "val2017")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = init(tmp_path / "mine.yaml", "deployments/demo/policy", tmp_path / "none", "24GB")
    assert result.exit_code == 2 and "no such folder" in result.stderr
