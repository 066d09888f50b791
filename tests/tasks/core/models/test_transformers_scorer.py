"""CLIP and SigLIP of transformers score as a plain forward of transformers does, and bad weights are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.models.scorer import Scorer, load_scorer
from tasks.core.models.scorer_files import ScorerError
from tests.support.paths import DEMO
from tests.support.tiny_scorers import CONTEXT, KINDS, save_tiny_scorer

TEXTS = ["a dog.", "red cars", "left", "cats " * 30]
IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Scorer:
    return load_scorer(folder, digest="tiny")


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).numpy()


def test_vectors_are_those_of_a_plain_forward(folder: Path, loaded: Scorer, pictures) -> None:
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    many = [*TEXTS, *TEXTS]
    inputs = processor(
        text=many, images=pictures[:8], padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
    )
    if model.config.model_type != "clip":
        del inputs["attention_mask"]  # as released: SigLIP's tokenizers return none
    with torch.no_grad():
        output = model(**inputs)
        features = model.get_image_features(**{n: t for n, t in inputs.items() if n in IMAGE_INPUTS}).pooler_output
    assert np.array_equal(loaded.embed_images(pictures[:8]), unit(features))
    # The model scales its vectors itself, which may move a last bit.
    assert np.allclose(loaded.embed_images(pictures[:8]), output.image_embeds, atol=1e-6)
    assert np.allclose(loaded.embed_texts(many), output.text_embeds, atol=1e-6)


def test_vectors_are_unit_long_whatever_the_batch(loaded: Scorer, pictures) -> None:
    images, texts = loaded.embed_images(pictures), loaded.embed_texts(TEXTS)
    assert images.dtype == texts.dtype == np.float32
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    assert np.array_equal(images, loaded.embed_images(pictures, batch_size=3))
    assert np.array_equal(texts, loaded.embed_texts(TEXTS, batch_size=1))
    assert len({row.tobytes() for row in [*images, *texts]}) == len(pictures) + len(TEXTS)


def test_a_text_past_the_context_is_cut_and_reported(loaded: Scorer) -> None:
    assert loaded.context_length == CONTEXT
    lengths = [n for n in range(1, 2 * CONTEXT) if not loaded.is_cut(" ".join(["a"] * n))]
    longest = " ".join(["a"] * max(lengths))
    vectors = loaded.embed_texts([longest, longest.rsplit(" ", 1)[0], f"{longest} b", f"{longest} c"])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-4)
    assert np.array_equal(vectors[0], vectors[2]) and np.array_equal(vectors[0], vectors[3])
    assert loaded.is_cut(f"{longest} b")


def test_the_text_of_an_end_token_ends_nothing(loaded: Scorer) -> None:
    vectors = loaded.embed_texts(["a </s> b", "a </s> c", "a"])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-4)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_lower_precision_gives_float32_unit_vectors_near_those_of_float32(
    folder: Path, loaded: Scorer, pictures, dtype: str
) -> None:
    low = load_scorer(folder, digest="tiny", dtype=dtype)
    assert next(low.model.parameters()).dtype == getattr(torch, dtype)
    for mine, full in (
        (low.embed_images(pictures[:4]), loaded.embed_images(pictures[:4])),
        (low.embed_texts(TEXTS), loaded.embed_texts(TEXTS)),
    ):
        assert mine.dtype == np.float32 and np.allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-6)
        assert not np.array_equal(mine, full)
        assert np.einsum("nd,nd->n", mine, full).min() > 0.999


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_open_clip_model_loads_in_a_lower_precision_too(scorer: Scorer, pictures, dtype: str) -> None:
    low = load_scorer(DEMO / "scorer", digest="demo", dtype=dtype)
    mine = low.embed_images(pictures[:4])
    assert mine.dtype == np.float32 and np.allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-6)
    assert np.einsum("nd,nd->n", mine, scorer.embed_images(pictures[:4])).min() > 0.999


def test_vectors_that_overflow_are_refused(tmp_path: Path, pictures) -> None:
    save_tiny_scorer("clip", tmp_path)
    scorer = load_scorer(tmp_path, digest="", dtype="float16")
    scorer.model.visual_projection.weight.mul_(1e6)
    with pytest.raises(ScorerError, match=r"not finite, with weights of torch\.float16: set scorer\.dtype to bfloat16"):
        scorer.embed_images(pictures[:2])


def refusal(folder: Path) -> str:
    with pytest.raises(ScorerError) as caught:
        load_scorer(folder, digest="")
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text
    return text


def copied_demo(folder: Path) -> Path:
    for file in (DEMO / "scorer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / "open_clip_model.safetensors"


def without(file: Path, dropped: str, **more: torch.Tensor) -> None:
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(dropped)}
    save_file({**tensors, **more}, file, metadata={"format": "pt"})


def test_missing_and_left_over_weights_are_named(tmp_path: Path) -> None:
    save_tiny_scorer("siglip", tmp_path)
    without(tmp_path / "model.safetensors", "vision_model.head.mlp", extra=torch.ones(2))
    text = refusal(tmp_path)
    assert "4 weights are missing: vision_model.head.mlp.fc1.bias" in text
    assert "1 weights are left over: extra" in text


def test_missing_and_left_over_weights_of_open_clip_are_named(tmp_path: Path) -> None:
    without(copied_demo(tmp_path), "ln_final", extra=torch.ones(2))
    text = refusal(tmp_path)
    assert "2 weights are missing: ln_final.weight, ln_final.bias" in text and "1 weights are left over: extra" in text


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_tiny_scorer("clip", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["projection_dim"] = 20
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "2 weights are of another shape: text_projection.weight, visual_projection.weight" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["version https://git-lfs.github.com/spec/v1\nsize 4\n", ""])
def test_a_weights_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    copied_demo(tmp_path).write_text(content)
    assert "open_clip_model.safetensors" in refusal(tmp_path)
    remedy = "git lfs pull" if content else f"download {tmp_path} again"
    assert remedy in refusal(tmp_path)


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    assert "its model_type is 'llava', and no image-text scorer" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("[")
    assert "is no configuration" in refusal(tmp_path)


def test_a_folder_without_its_processor_is_refused(tmp_path: Path) -> None:
    save_tiny_scorer("clip", tmp_path)
    for file in (*tmp_path.glob("*processor*"), *tmp_path.glob("tokenizer*")):
        file.unlink()
    assert "transformers cannot load it as a scorer" in refusal(tmp_path)


def test_open_clip_weights_are_never_drawn_at_random() -> None:
    with pytest.raises(ScorerError, match=r"ViT-B-32: open_clip cannot load it \(Required pretrained weights"):
        load_scorer("ViT-B-32", digest="")
