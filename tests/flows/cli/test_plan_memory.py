"""`visloop plan --device-memory`: every paper's profile fits, or says what to change and, changed so, fits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli.command import app
from flows.profiles.loading import load_profile

PAPERS = [
    "visvm-llava-next-7b", "vimar-llava-next-7b", "llava-cot-llama-3.2-11b", "fisao-llava-1.5-7b",
    "qwen2.5-vl-3b", "qwen3-vl-4b", "smolvlm2-500m",
]  # fmt: skip
NO_DATA = ("--set", "data.train.root=/nowhere", "--set", "data.benchmark.root=/nowhere")


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


@pytest.mark.parametrize("memory", ["80GB", "24GB"])
@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_profile_fits_or_says_what_to_change_and_then_fits(name: str, memory: str) -> None:
    first = plan(name, *NO_DATA, "--device-memory", memory)
    if memory == "80GB":
        assert first.exit_code == 0, first.stderr
    if first.exit_code == 0:
        assert f"fits {float(memory[:-2]):.1f} GB" in first.stdout
        return
    assert first.exit_code == 1
    refusals = [line for line in first.stderr.splitlines() if line.startswith("error:")]
    assert refusals and all("change: --set" in line for line in refusals)
    for line in refusals:  # a stage's own change makes that stage fit
        stage = line.split()[1]
        again = plan(name, *NO_DATA, "--device-memory", memory, *line.partition("change: ")[2].split())
        assert f"error: {stage} needs" not in again.stderr
    everything = re.search(r"^everything fits with: (.*)$", first.stderr, re.MULTILINE)
    assert everything
    changed = plan(name, *NO_DATA, "--device-memory", memory, *everything[1].split())
    assert changed.exit_code == 0, changed.stderr


def test_full_training_of_seven_billion_parameters_is_refused_with_the_way_out() -> None:
    result = plan("visvm-llava-next-7b", *NO_DATA, "--set", "finetune.train=full", "--device-memory", "80GB")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: finetune")]
    assert "--set finetune.train=lora" in line and "Adam's moments" in line


def test_a_device_that_nothing_fits_says_so() -> None:
    result = plan("visvm-llava-next-7b", *NO_DATA, "--device-memory", "8GB")
    assert result.exit_code == 1
    assert "use a smaller model" in result.stderr and "everything fits with" not in result.stderr


def test_the_demo_prints_memory_beside_its_stages() -> None:
    result = plan("demo", "--device-memory", "1GB")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if re.search(r" finetune .* sample", line)]
    assert re.search(r"\d+ MB", line)
    assert "fits 1.0 GB" in result.stdout


def test_an_unknown_model_is_named_with_what_to_do() -> None:
    arguments = ("demo", "--set", "policy.checkpoint=org/unknown", "--device-memory", "24GB")
    result = plan(*arguments)
    assert result.exit_code != 0 and "hf download org/unknown" in result.output


@pytest.mark.parametrize("size", ["24", "0GB", "much", "-3GB"])
def test_a_size_without_its_unit_is_refused(size: str) -> None:
    result = plan("demo", f"--device-memory={size}")
    assert result.exit_code == 2 and "80GB or 79.6GiB" in result.stderr


def test_a_large_image_in_a_folder_counts(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (2400, 1800)).save(tmp_path / "large.png")
    settings = ("--set", f"data.train={{kind: folder, root: {tmp_path}}}", *NO_DATA[2:])
    result = plan("qwen3-vl-4b", *settings, "--set", "policy.max_pixels=null", "--device-memory", "80GB")
    assert "2400x1800" in result.stdout
    assert result.exit_code == 1 or "fits" in result.stdout


def test_the_former_profile_name_warns_and_is_the_new_profile(caplog: pytest.LogCaptureFixture) -> None:
    assert load_profile("llava-7b-coco") == load_profile("visvm-llava-next-7b")
    assert "llava-7b-coco is now visvm-llava-next-7b" in caplog.text
