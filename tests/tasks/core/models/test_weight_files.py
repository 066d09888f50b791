"""A weights file that is none is refused before a library reads it, in a line that names the file and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.core.models.weight_files import WeightFileError, check_weight_files, tensor_bytes
from tests.support.paths import DEMO

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4000000\n"


def saved(folder: Path, name: str = "model.safetensors", **tensors: torch.Tensor) -> Path:
    save_file(tensors or {"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)}, folder / name)
    return folder / name


def indexed(folder: Path, places: dict[str, str]) -> Path:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def refusal(folder: Path, stem: str = "model") -> str:
    with pytest.raises(WeightFileError) as caught:
        check_weight_files(folder, stem)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("folder", "stem"), [("policy", "model"), ("scorer", "open_clip_model")])
def test_the_shipped_models_pass(folder: str, stem: str) -> None:
    check_weight_files(DEMO / folder, stem)


def test_a_whole_file_passes_and_its_tensors_have_their_sizes(tmp_path: Path) -> None:
    assert tensor_bytes(saved(tmp_path)) == {"a": 12, "b": 8}
    check_weight_files(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_is_named_with_its_command(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    text = refusal(tmp_path)
    assert name in text and "git-lfs pointer of" in text and f"run `git lfs pull` in {tmp_path}" in text


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_a_download_that_was_cut_anywhere_is_refused(tmp_path: Path, kept: int) -> None:
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    text = refusal(tmp_path)
    assert "model.safetensors" in text and f"download {tmp_path} again" in text


def test_a_file_with_something_behind_its_tensors_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path)
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"more")
    assert f"is too long: {size + 4} bytes, its header states {size}" in refusal(tmp_path)


def test_a_page_saved_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("<html><body>Sign in</body></html>" * 9)
    assert "is no safetensors file" in refusal(tmp_path)


def test_a_header_that_is_no_table_of_tensors_is_refused(tmp_path: Path) -> None:
    header = b'{"a": 3}'
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "its header can't be read" in refusal(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "no weights file (model.safetensors, or its shards" in refusal(tmp_path)


def test_shards_are_checked_against_their_index(tmp_path: Path) -> None:
    saved(tmp_path, "1.safetensors", a=torch.ones(2))
    saved(tmp_path, "2.safetensors", b=torch.ones(2))
    indexed(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    check_weight_files(tmp_path)
    indexed(tmp_path, {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"})
    assert "lack 1 tensors that it lists: c" in refusal(tmp_path)
    indexed(tmp_path, {"a": "1.safetensors", "b": "3.safetensors"})
    assert "1 of 2 shards are missing: 3.safetensors" in refusal(tmp_path)
    (tmp_path / "2.safetensors").write_text(POINTER)
    indexed(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    assert "2.safetensors is a git-lfs pointer" in refusal(tmp_path)


@pytest.mark.parametrize(("content", "what"), [(POINTER, "git lfs pull"), ("{", "no index"), ('{"a": 1}', "no index")])
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert what in refusal(tmp_path)


def test_only_the_file_that_is_loaded_is_judged(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "consolidated.safetensors").write_text(POINTER)
    check_weight_files(tmp_path)
    assert "consolidated.safetensors" in refusal(tmp_path, "open_clip_model")


def test_a_pickle_that_is_no_pointer_is_left_to_its_loader(tmp_path: Path) -> None:
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"PK\x03\x04 and more")
    check_weight_files(tmp_path, "open_clip_model")
    assert tensor_bytes(tmp_path / "open_clip_pytorch_model.bin") == {}
