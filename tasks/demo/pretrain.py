"""Trains the demo's models from nothing and writes them where any checkpoint may be.

What passes between the steps is folders. A folder is complete or not there: it is written under another name and renamed.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from safetensors.torch import save_file

from tasks.core.demo.answer_audit import answer_figures
from tasks.core.demo.audit import Decoding, captions_of, separation, snowball
from tasks.core.demo.measure import hallucination
from tasks.core.demo.policy_model import build_processor, build_tokenizer
from tasks.core.demo.scenes import sample_scenes
from tasks.core.demo.scorer_model import model_cfg, preprocess_cfg
from tasks.core.demo.train_answers import build_answer_tokenizer, train_answers
from tasks.core.demo.train_oracle import train_oracle
from tasks.core.demo.train_policy import train_policy
from tasks.core.demo.train_scorer import train_scorer
from tasks.core.demo.train_vision import PATCH, train_vision
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers and open_clip

import open_clip  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPVisionModel  # noqa: E402

if TYPE_CHECKING:
    from open_clip.model import CLIP
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

LOG_EVERY = 100  # steps
THREADS = 1  # a task: two train side by side, and one thread gives the same weights again
POLICIES = {"policy": "committed", "policy-independent": "independent"}  # folder -> captioning rule
SCORERS = ("scorer", "scorer-half", "oracle")


TEMPERATURES = (0.0, 0.3, 0.6, 0.9)  # of the rollouts the models are measured on


class Steps(NamedTuple):
    """How long each model trains."""

    tower: int = 600
    policy: int = 1800
    scorer: int = 3000
    oracle: int = 1000
    answers: int = 2000


def pretrain_tower(folder: Path, *, steps: int, seed: int, batch: int = 64) -> Path:
    """The vision tower both models start from."""
    torch.set_num_threads(THREADS)
    for step, right, tower in train_vision(steps=steps, batch=batch, seed=seed):  # noqa: B007  (the last is kept)
        log_step("tower", step, steps, f"{right:.1%} of object patches named right")
    with published(folder) as fresh:
        tower.save_pretrained(fresh)
    return folder


def pretrain_policy(
    tower_folder: Path, folder: Path, *, steps: int, seed: int, rule: str = "committed", batch: int = 48
) -> Path:
    """A captioning policy that learned a rule of `tasks.core.demo.captions`, with its processor."""
    torch.set_num_threads(THREADS)
    tower, tokenizer = CLIPVisionModel.from_pretrained(tower_folder), build_tokenizer()
    training = train_policy(tower, tokenizer, steps=steps, batch=batch, seed=seed, rule=rule)
    for step, loss, model in training:  # noqa: B007
        log_step(f"{rule} policy", step, steps, f"loss {loss:.3f}")
    with published(folder) as fresh:
        model.save_pretrained(fresh)
        build_processor(tokenizer, PATCH).save_pretrained(fresh)
    return folder


def pretrain_answers(policy_folder: Path, folder: Path, *, steps: int, seed: int, batch: int = 48) -> Path:
    """The second policy, which also answers questions, with its processor; it starts from the first one's weights."""
    torch.set_num_threads(THREADS)
    first: Any = AutoModelForImageTextToText.from_pretrained(policy_folder)
    known, tokenizer = AutoProcessor.from_pretrained(policy_folder).tokenizer, build_answer_tokenizer()
    training = train_answers(first, known, tokenizer, steps=steps, batch=batch, seed=seed)
    for step, losses, model in training:  # noqa: B007
        log_step("answers", step, steps, ", ".join(f"{kind} loss {loss:.3f}" for kind, loss in losses.items()))
    with published(folder) as fresh:
        model.save_pretrained(fresh)
        build_processor(tokenizer, PATCH).save_pretrained(fresh)
    return folder


def pretrain_scorer(tower_folder: Path, folder: Path, half: Path, *, steps: int, seed: int, batch: int = 64) -> Path:
    """The image-sentence scorer, as open_clip reads it from a `local-dir:`; `half` is what it was after half of the steps."""
    torch.set_num_threads(THREADS)
    tower, tokenizer = CLIPVisionModel.from_pretrained(tower_folder), build_tokenizer(append_eos=True)
    for step, loss, model in train_scorer(tower, tokenizer, steps=steps, batch=batch, seed=seed):
        log_step("scorer", step, steps, f"loss {loss:.3f}")
        if step == steps // 2:
            _save_scorer(model, tower, tokenizer, half)
    _save_scorer(model, tower, tokenizer, folder)
    return folder


def pretrain_oracle(tower_folder: Path, folder: Path, *, steps: int, seed: int, batch: int = 48) -> Path:
    """A scorer that learns from the truth, of the same form."""
    torch.set_num_threads(THREADS)
    tower, tokenizer = CLIPVisionModel.from_pretrained(tower_folder), build_tokenizer(append_eos=True)
    for step, loss, model in train_oracle(tower, tokenizer, steps=steps, batch=batch, seed=seed):  # noqa: B007
        log_step("oracle", step, steps, f"loss {loss:.3f}")
    _save_scorer(model, tower, tokenizer, folder)
    return folder


def _save_scorer(model: CLIP, tower: CLIPVisionModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    config = {"model_cfg": model_cfg(tower, tokenizer), "preprocess_cfg": preprocess_cfg()}
    with published(folder) as fresh:
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, fresh / "open_clip_model.safetensors")
        (fresh / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        tokenizer.save_pretrained(fresh)


def measure_models(folder: Path, file: Path, *, scenes: int, seed: int) -> dict[str, Any]:
    """Measure the captioning policies and the scorers in `folder` on new scenes, loading them as a user would.

    The figures are written to `file`: of each policy its captions at several temperatures, and of each scorer how well it
    separates that policy's true sentences from its invented ones.
    """
    torch.set_num_threads(THREADS)
    world = list(sample_scenes(f"measure {seed}", scenes))
    present = [scene.categories for scene in world]
    figures: dict[str, Any] = {}
    for policy in (name for name in POLICIES if (folder / name).exists()):
        model = AutoModelForImageTextToText.from_pretrained(folder / policy).eval()
        processor = AutoProcessor.from_pretrained(folder / policy)
        rollouts = []
        for temperature in TEMPERATURES:
            rollouts.append(captions_of(model, processor, world, Decoding(temperature, seed)))
            figures[f"{policy} t={temperature:g}"] = hallucination(rollouts[-1], present)._asdict()
        figures[f"{policy} snowball"] = snowball(world, rollouts)._asdict()
        for scorer in (name for name in SCORERS if (folder / name).exists()):
            figures[f"{scorer} on {policy}"] = separation(world, rollouts, _Scorer(folder / scorer))._asdict()
    return _noted(file, figures)


def measure_answers(policy_folder: Path, scorer_folder: Path, file: Path, *, scenes: int, seed: int) -> dict[str, Any]:
    """Measure the saved second policy on the same new scenes; its figures stand under its folder's name in `file`."""
    torch.set_num_threads(THREADS)
    model: Any = AutoModelForImageTextToText.from_pretrained(policy_folder).eval()
    processor: Any = AutoProcessor.from_pretrained(policy_folder)
    world = list(sample_scenes(f"measure {seed}", scenes))
    figures = answer_figures(model, processor, world, _Scorer(scorer_folder), seed=seed)
    return _noted(file, {policy_folder.name: figures})


def _noted(file: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Put figures beside those that the file has; all of them are returned."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(known | figures, indent=2) + "\n", encoding="utf-8")
    return known | figures


class _Scorer:
    """Cosine of image and sentence by an open_clip folder."""

    def __init__(self, folder: Path) -> None:
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.model.eval()

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image], sentences: list[str], owners: list[int]) -> list[float]:
        """The cosine of each sentence with image `owners[i]`."""
        pixels = torch.stack([self.preprocess(image) for image in images])
        pictures = self.model.encode_image(pixels, normalize=True)
        different = list(dict.fromkeys(sentences))
        texts = self.model.encode_text(self.tokenize(different), normalize=True)
        rows = [different.index(text) for text in sentences]
        return (pictures[owners] * texts[rows]).sum(dim=-1).tolist()


def log_step(what: str, step: int, steps: int, news: str) -> None:
    """A line in the log at every LOG_EVERY-th step and the last."""
    if step % LOG_EVERY == 0 or step == steps:
        log.info("%s: step %d of %d, %s", what, step, steps, news)


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder` that replaces it when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        yield fresh
        for file in fresh.iterdir():
            file.chmod(0o644)  # weights are written for their owner only
        if folder.exists():
            shutil.move(folder, Path(scratch) / f"old-{time.time_ns()}")
        fresh.rename(folder)
