"""Scorers and rewards by reference: what is in a reference, and what it scores; a plug-in is in test_plugin_reward."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from storage import checkpoints
from storage.artifacts import ScorerCheckpoint
from tasks.configs.reward import (
    CosineReward,
    JudgeReward,
    LikelihoodReward,
    ObjectsReward,
    PluginReward,
    Reward,
    TokenReward,
)
from tasks.core.models.scorer_files import ScorerError
from tasks.models.endpoint import EndpointError
from tasks.models.handles import PolicyHandle
from tasks.models.scorers import import_reward, import_scorer, load_scorer, load_scores, needed_by, reward_name
from tests.support.chat_server import answering, chat_server
from tests.support.small_world import policy
from tests.support.tiny_scorers import save_tiny_scorer

FOLDER = "deployments/demo/scorer"


def test_a_folder_is_loaded_from_where_it_is() -> None:
    scores = load_scores(import_scorer(FOLDER), Counter())
    assert scores.scorer.context_length == 32


def test_an_open_clip_scorer_is_stored_as_its_name() -> None:
    ref = import_scorer("ViT-L-14-336-quickgelu/openai")
    assert ref == import_scorer("ViT-L-14-336-quickgelu/openai") != import_scorer("ViT-B-32/openai")
    (file,) = checkpoints.folder(ref).glob("*.txt")
    assert file.read_text() == "ViT-L-14-336-quickgelu/openai"


def test_an_open_clip_scorer_is_loaded_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.core.models.scorer as models

    loaded = []
    monkeypatch.setattr(models, "load_scorer", lambda checkpoint, **options: loaded.append(str(checkpoint)))
    load_scores(import_scorer("ViT-B-16/openai"), Counter())
    assert loaded == ["ViT-B-16/openai"]


@pytest.mark.parametrize("checkpoint", ["nonsense", "a/b/c", "/no/such/folder", "name/"])
def test_anything_else_is_an_error_that_lists_the_forms(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r"neither hf-hub:ORG/NAME nor NAME/PRETRAINED .* nor plugin:NAME"):
        import_scorer(checkpoint)


# Rewards of the profile


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8))


IMAGES = [noise(1), noise(2)]
COCO = [CosineReward(checkpoint=FOLDER), LikelihoodReward(), LikelihoodReward(contrast=False), TokenReward(),
        JudgeReward(url="http://localhost:1/v1", model="m")]  # fmt: skip


def imported(
    reward: Reward, detections: ScorerCheckpoint | None = None, likelihood_of: PolicyHandle | None = None
) -> ScorerCheckpoint:
    return import_reward(reward, import_scorer(FOLDER), likelihood_of or policy(), detections)


@pytest.mark.parametrize("reward", COCO, ids=reward_name)
def test_the_reference_of_a_reward_is_the_same_for_the_same_and_whatever_its_weight(reward: Reward) -> None:
    ref = imported(reward)
    assert ref.kind == "scorer" and ref == imported(reward) == imported(reward.model_copy(update={"weight": 3.0}))
    others = [imported(other) for other in COCO if other != reward]
    assert ref not in others


def test_what_a_likelihood_depends_on_is_in_its_reference() -> None:
    ref = imported(LikelihoodReward())
    assert ref != imported(LikelihoodReward(prompt="What is it?"))
    assert ref != imported(LikelihoodReward(), likelihood_of=replace(policy(), dtype="bfloat16"))
    assert list(needed_by(ref)) == [policy().checkpoint]


def test_the_profiles_scorer_is_used_where_a_reward_names_none() -> None:
    assert list(needed_by(imported(TokenReward()))) == [import_scorer(FOLDER)]
    assert list(needed_by(imported(TokenReward(checkpoint="ViT-B-32/openai")))) == [import_scorer("ViT-B-32/openai")]
    assert imported(CosineReward(checkpoint=FOLDER)) == import_scorer(FOLDER)
    assert list(needed_by(import_scorer(FOLDER))) == []


def test_an_objects_reward_needs_detections() -> None:
    with pytest.raises(ValueError, match="got None: pass output `objects` of the stage detect"):
        imported(ObjectsReward())
    with pytest.raises(ValueError, match=r"got scorer .*: pass the output"):
        imported(ObjectsReward(), import_scorer(FOLDER))


def test_a_key_is_in_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (file,) = checkpoints.folder(imported(COCO[-1])).iterdir()
    assert "sk-secret" not in file.read_text() and "OPENAI_API_KEY" in file.read_text()
    with pytest.raises(EndpointError, match="no name, password or query"):
        imported(JudgeReward(url="http://me:secret@localhost/v1", model="m"))


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        (CosineReward(checkpoint="ViT-B-32/openai"), "cosine ViT-B-32/openai"),
        (CosineReward(checkpoint="hf-hub:timm/ViT-B-16-SigLIP"), "cosine timm/ViT-B-16-SigLIP"),
        (CosineReward(checkpoint="/models/here/demo/scorer"), "cosine demo/scorer"),
        (LikelihoodReward(), "likelihood"),
        (LikelihoodReward(contrast=False), "likelihood uncontrasted"),
        (ObjectsReward(), "objects"),
        (ObjectsReward(table="/tables/yolo.parquet"), "objects yolo.parquet"),
        (TokenReward(), "token_clip"),
        (TokenReward(checkpoint="ViT-B-32/openai"), "token_clip ViT-B-32/openai"),
        (JudgeReward(url="http://host/v1", model="qwen"), "judge qwen"),
        (PluginReward(name="length"), "plugin length"),
    ],
)
def test_names_are_short_and_tell_rewards_apart(reward: Reward, name: str) -> None:
    assert reward_name(reward) == name


@pytest.mark.parametrize("reward", COCO[:-1], ids=reward_name)
def test_a_score_is_the_same_whether_jobs_are_image_ids_or_numbers(reward: Reward) -> None:
    sentences = [(0, "There is a dog."), (1, "There is a dog."), (0, "There is a dog and a cat near it.")]
    by_number = load_scores(imported(reward), Counter()).score(dict(enumerate(IMAGES)), sentences)
    counters: Counter[str] = Counter()
    scores = load_scores(imported(reward), counters)
    by_id = scores.score({"b": IMAGES[1], "a": IMAGES[0]}, [("ab"[job], text) for job, text in sentences[::-1]])[::-1]
    assert by_number == by_id and len(set(by_number)) == 3
    assert sum(counters.values()) > 0


def test_a_judge_s_ratings_are_scores() -> None:
    with chat_server(
        lambda body, before: answering("8" if "dog" in body["messages"][0]["content"][1]["text"] else "no")
    ) as server:
        counters: Counter[str] = Counter()
        scores = load_scores(imported(JudgeReward(url=server.url, model="m")), counters)
        assert scores.score({0: IMAGES[0]}, [(0, "A dog."), (0, "A cat."), (0, "A dog.")]) == [0.8, None, 0.8]
    assert len(server.bodies) == 2
    assert counters == {"judge_rated": 1, "judge_unparsable": 1, "judge_refused": 0, "texts_scored_judge": 2}


def test_a_siglip_is_a_scorer_like_any_other(tmp_path: Path) -> None:
    reward = CosineReward(checkpoint=str(tiny_siglip(tmp_path)))
    scores = load_scores(imported(reward), Counter())
    assert scores.scorer.model.logit_bias is not None
    got = scores.score(dict(enumerate(IMAGES)), [(0, "A dog."), (1, "A dog."), (0, "There is a cat.")])
    images, texts = scores.scorer.embed_images(IMAGES), scores.scorer.embed_texts(["A dog.", "There is a cat."])
    assert got == pytest.approx([images[0] @ texts[0], images[1] @ texts[0], images[0] @ texts[1]], abs=1e-6)
    assert len(set(got)) == 3 and scores.is_cut("dog " * 99)


def tiny_siglip(folder: Path) -> Path:
    """A random open_clip checkpoint as SigLIP's are: timm's tower, a text tower without causal mask, a bias, its own mean and
    standard deviation, squashed images."""
    from tasks.core.models.open_clip_scorer import open_clip

    text = {
        "context_length": 16, "vocab_size": 722, "hf_tokenizer_name": "tokenizer", "width": 64, "heads": 2, "layers": 1,
        "tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
    }  # fmt: skip
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "none"}
    model = {"embed_dim": 64, "init_logit_bias": -10.0, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(FOLDER) / name, folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = open_clip.model.CustomTextCLIP(
            **{name: value for name, value in model.items() if name != "custom_text"}
        )
    save_file({k: v.contiguous() for k, v in built.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_a_folder_of_transformers_scores_in_the_precision_of_its_reference(tmp_path: Path, kind: str) -> None:
    folder = str(save_tiny_scorer(kind, tmp_path))
    full, low = import_scorer(folder), import_scorer(folder, "bfloat16")
    pairs = [(0, "A dog."), (1, "A dog."), (0, "There is a cat.")]
    exact, near = (load_scores(ref, Counter()).score(dict(enumerate(IMAGES)), pairs) for ref in (full, low))
    assert exact != near and near == pytest.approx(exact, abs=0.02)
    assert load_scorer(low).digest == low.digest and load_scorer(low).model.dtype == torch.bfloat16
    assert load_scorer(full).model.dtype == torch.float32


def test_the_precision_is_part_of_what_names_a_scorer() -> None:
    refs = [import_scorer(FOLDER, dtype) for dtype in ("float32", "bfloat16", "float16")]
    assert len({ref.digest for ref in refs}) == 3
    assert refs[0] == import_scorer(FOLDER)
    assert list(needed_by(refs[1])) == [refs[0]]
    words = imported_in("bfloat16", TokenReward(checkpoint=FOLDER))
    assert [ref.digest for ref in needed_by(words)] == [refs[1].digest, refs[0].digest]
    assert imported_in("bfloat16", CosineReward(checkpoint=FOLDER)) == refs[1]


def imported_in(dtype: str, reward: Reward) -> ScorerCheckpoint:
    return import_reward(reward, import_scorer(FOLDER), PolicyHandle(policy()), dtype=dtype)


def test_a_plugin_has_no_precision() -> None:
    with pytest.raises(ValueError, match=r"scorer\.dtype bfloat16 for plugin:mine: a plug-in loads its own model"):
        import_scorer("plugin:mine", "bfloat16")


def test_a_hub_id_without_its_prefix_is_refused_before_anything_is_paid() -> None:
    with pytest.raises(ValueError, match=r"no model 'openai'; a repository of the hub is hf-hub:openai/clip-vit-large"):
        import_scorer("openai/clip-vit-large-patch14-336")


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("open_clip_model.safetensors", b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "git lfs pull"),
        ("open_clip_model.safetensors", b"", "download"),
        ("config.json", b'{"model_type": "llava"}', "model_type is 'llava'"),
    ],
)
def test_a_folder_that_is_no_scorer_is_refused_when_it_is_imported(
    tmp_path: Path, name: str, content: bytes, remedy: str
) -> None:
    if name != "config.json":
        shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScorerError, match=remedy):
        import_scorer(str(tmp_path))
