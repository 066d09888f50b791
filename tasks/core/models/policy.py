"""The policy: any image-text-to-text checkpoint with its processor and chat template, as the engine needs it.

No decoding here, and no training: a `Policy` holds a model and turns images with prompts into model inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tasks.core.models.hidden_states import hidden_states
from tasks.core.models.per_token import with_answers
from tasks.core.models.positions import as_position_ids, prompt_positions
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

transformers_logging.disable_progress_bar()  # a bar for each file of a checkpoint hides the stages' own progress

Message = dict[str, Any]


class PolicyError(ValueError):
    """A checkpoint that can't be used as a policy."""


@dataclass(frozen=True)
class Policy:
    """A loaded model with its processor; `digest` names its weights."""

    model: Any
    processor: Any
    digest: str

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

    def inputs(
        self, images: Sequence[Image.Image], texts: Sequence[str], *, answer_next: bool = True
    ) -> dict[str, Any]:
        """Model inputs of one user turn (image, text) each, left-padded: input_ids and attention_mask [B, L], pixels.

        With `answer_next` the template's generation prompt follows, so that the next token is the answer's first.
        """
        return chat_inputs(
            self.processor,
            [[user_turn(i, t)] for i, t in zip(images, texts, strict=True)],
            device=self.device,
            dtype=self.model.dtype,
            answer_next=answer_next,
        )

    def answered(
        self, images: Sequence[Image.Image], texts: Sequence[str], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Inputs of user turns with the tokens of answers behind them, [B, L + longest answer], padded on the left."""
        return with_answers(self.model, self.inputs(images, texts), answers, pad_id=self.pad_id)

    def hidden(self, inputs: dict[str, Any], layer: int) -> torch.Tensor:
        """Hidden states [B, L, D] of a layer, from the end: -1 is the last one after the final norm."""
        positions = as_position_ids(prompt_positions(self.model, inputs))
        states = hidden_states(self.model, layer, **inputs, position_ids=positions, use_cache=False)
        assert states is not None
        return states


def user_turn(image: Image.Image, text: str) -> Message:
    """A chat message with an image and a text."""
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}


def chat_inputs(
    processor: Any, chats: list[list[Message]], *, device: torch.device, dtype: torch.dtype, answer_next: bool
) -> dict[str, Any]:
    """Tokenise chats through the processor's template, padded on the left."""
    texts = processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=answer_next)
    images = [[part["image"] for turn in chat for part in turn["content"] if part["type"] == "image"] for chat in chats]
    bos = processor.tokenizer.bos_token
    batch = processor(
        text=texts,
        images=images,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        # The template may have written the first token already.
        add_special_tokens=not (bos and texts[0].startswith(bos)),
    )
    return {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }


def load_policy(
    folder: str | Path, *, digest: str, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> Policy:
    """Load a checkpoint folder (or hub id) in evaluation mode, without gradients.

    Raises:
        PolicyError: if it is no image-text-to-text model, or has no processor or chat template.
    """
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
        )
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:  # some processors want a package of their own
        raise PolicyError(
            f"{folder}: not a vision-language checkpoint that transformers can load ({error}). "
            "Needed: a folder or hub id for AutoModelForImageTextToText with its processor"
        ) from error
    if not getattr(processor, "chat_template", None):
        raise PolicyError(f"{folder}: its processor has no chat template; add chat_template.jinja to the folder")
    return Policy(model.to(device).eval().requires_grad_(False), processor, digest)
