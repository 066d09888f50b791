"""The policy: any image-text-to-text checkpoint with its processor and chat template, as the engine needs it.

No decoding here, and no training: a `Policy` holds a model and turns images with prompts into model inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from tasks.core.models.hidden_states import hidden_states
from tasks.core.models.packages import missing_package
from tasks.core.models.per_token import with_answers
from tasks.core.models.positions import as_position_ids, prompt_positions
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

from tasks.core.models.chat import Chat, Message, user_turn  # noqa: E402
from tasks.core.models.checkpoint_checks import PolicyError, check_folder, check_kind, check_loaded, check_weights  # noqa: E402
from tasks.core.models.decoding_rules import DecodingRules  # noqa: E402
from tasks.core.models.image_check import ImageCheck, UnusableImage  # noqa: E402
from tasks.core.models.image_size import limit_pixels  # noqa: E402
from tasks.core.models.placeholders import placeholder_tokens  # noqa: E402
from tasks.core.models.policy_settings import DEFAULTS, PolicySettings  # noqa: E402
from tasks.core.models.weight_files import CheckpointError  # noqa: E402

__all__ = ["Message", "Policy", "PolicyError", "load_policy", "user_turn"]

transformers_logging.disable_progress_bar()  # a bar for each file of a checkpoint hides the stages' own progress

_OF_IMAGES = ("pixel", "image", "aspect", "video")  # how inputs begin whose second dimension is no token's


@dataclass(frozen=True)
class Policy:
    """A loaded model with its processor; `digest` names its weights."""

    model: Any
    processor: Any
    digest: str
    settings: PolicySettings = DEFAULTS

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end an answer: the generation config's, else the tokenizer's."""
        ids = self.model.generation_config.eos_token_id
        ids = self.tokenizer.eos_token_id if ids is None else ids
        return frozenset(ids if isinstance(ids, list) else [ids])

    @property
    def pad_id(self) -> int:
        """What fills a short row; its mask is 0, so any id does."""
        pad = self.tokenizer.pad_token_id
        return int(min(self.end_ids) if pad is None else pad)

    @cached_property
    def end_id(self) -> int:
        """The token that ends an answer in training: of `end_ids` the one that the template writes after an answer, else the
        tokenizer's, else the smallest.
        """
        after = self.chat.answered_turn.after
        written = self.tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        candidates = [*written, self.tokenizer.eos_token_id, min(self.end_ids)]
        return int(next(id_ for id_ in candidates if id_ in self.end_ids))

    @cached_property
    def _placeholders(self) -> dict[int, str]:
        tokens = placeholder_tokens(self.model.config, self.processor)
        return {id_: text for id_, text in tokens.items() if id_ not in self.end_ids}

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Token ids that no sampler may draw: placeholders of images, videos and sound. Some may have no logit."""
        return tuple(sorted(self._placeholders))

    @cached_property
    def chat(self) -> Chat:
        """How texts become turns."""
        texts = tuple(text for text in self._placeholders.values() if text)
        settings = self.settings
        return Chat(self.processor, settings.template_arguments, settings.system_prompt, texts)

    @cached_property
    def rules(self) -> DecodingRules:
        """What the checkpoint's generation config does to logits, and the ban of placeholders."""
        return DecodingRules.of(
            self.model.generation_config, banned=self.banned_ids, ends=self.end_ids, top_k=self.settings.top_k
        )

    def answer_ids(self, text: str) -> list[int]:
        """An answer's tokens as the policy would decode them after its prompt, without an end token.

        White space before the text is what the template writes there; special tokens in the text are read as plain text. A
        text of white space has no tokens.
        """
        if not text.strip():
            return []
        turn = self.chat.answered_turn
        return self._ids_after(turn.stem, turn.before + text.strip())

    def continued_ids(self, text: str, *, space: str) -> list[int]:
        """Tokens of a text after others of the same answer, with the white space between; special tokens are plain text."""
        return self._ids_after("", space + text)

    def next_turn_ids(self, prompt: str) -> list[int]:
        """Tokens between an answer's end token and the next answer: a user turn without an image, as the template writes it.

        Raises:
            ValueError: the template drops earlier answers.
        """
        ids = list(self.tokenizer(self.chat.next_turn(prompt), add_special_tokens=False)["input_ids"])
        return ids[ids.index(self.end_id) + 1 :] if self.end_id in ids else ids

    def _ids_after(self, stem: str, text: str) -> list[int]:
        before, ids = self._plain_ids(stem), self._plain_ids(stem + text)
        return ids[len(before) :] if ids[: len(before)] == before else self._plain_ids(text)

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def inputs(
        self, images: Sequence[Image.Image], texts: Sequence[str], *, answer_next: bool = True
    ) -> dict[str, Any]:
        """Model inputs of one user turn (image, text) each, left-padded: input_ids and attention_mask [B, L], pixels.

        With `answer_next` the texts are prompts, and the template's generation prompt follows, so that the next token is the
        answer's first.

        Raises:
            UnusableImage: the processor refuses an image.
        """
        try:
            batch = self.chat.inputs(images, texts, answer_next=answer_next)
        except Exception as error:
            check = ImageCheck(self.processor)
            if problem := next(filter(None, (check.problem(*image.size) for image in images)), None):
                raise UnusableImage(problem) from error
            raise
        return {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }

    def answered(
        self, images: Sequence[Image.Image], texts: Sequence[str], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Inputs of user turns with the tokens of answers behind them, [B, L + longest answer], padded on the left."""
        return with_answers(self.model, self.inputs(images, texts), answers, pad_id=self.pad_id)

    def hidden(self, inputs: dict[str, Any], layer: int) -> torch.Tensor:
        """Hidden states [B, L, D] of a layer, from the end: -1 is the last one after the final norm.

        What is behind the layer is not computed.
        """
        positions = as_position_ids(prompt_positions(self.model, inputs))
        states = hidden_states(self.model, layer, **inputs, position_ids=positions, use_cache=False)
        assert states is not None
        return states


def load_policy(
    folder: str | Path,
    *,
    digest: str,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    settings: PolicySettings = DEFAULTS,
) -> Policy:
    """Load a checkpoint folder (or hub id) in evaluation mode, without gradients.

    Raises:
        CheckpointError: it is no image-text-to-text model that is supported, has no processor or chat template, its weights are
            not whole, or it can't honour a setting.
    """
    check_folder(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
        check_weights(folder)
        with _quietly():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, ImportError, AttributeError, RuntimeError, SafetensorError) as error:
        raise PolicyError(_not_loaded(folder, error)) from error
    model, info = loaded
    check_kind(folder, model.config.to_dict())
    check_loaded(folder, info)
    if not getattr(processor, "chat_template", None):
        raise PolicyError(f"{folder}: its processor has no chat template; add chat_template.jinja to the folder")
    policy = Policy(model.to(device).eval().requires_grad_(False), processor, digest, settings)
    try:
        limit_pixels(processor, model.config, settings.max_pixels)
        policy.chat.check()
        assert policy.rules
    except ValueError as error:
        raise PolicyError(f"{folder}: {error}") from None
    return policy


@contextmanager
def _quietly() -> Iterator[None]:
    """No report of weights that don't fit: `check_loaded` gives it in a line."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _not_loaded(folder: str | Path, error: Exception) -> str:
    """What to do where a library refuses a checkpoint, in a line."""
    if needed := missing_package(error):
        return f"{folder}: {needed}"
    reason = " ".join(str(error).split())
    return (
        f"{folder}: not a vision-language checkpoint that transformers can load ({reason[:300]}). "
        "Needed: a folder or hub id for AutoModelForImageTextToText with its processor"
    )
