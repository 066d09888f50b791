"""The policy: any image-text-to-text checkpoint with its processor and chat template, as the engine needs it.

No decoding here, and no training: a `Policy` holds a model and turns images with prompts into model inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from tasks.core.models.parts import up_to_layer
from tasks.core.models.positions import as_position_ids, prompt_positions
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

transformers_logging.disable_progress_bar()  # a bar for each file of a checkpoint hides the stages' own progress

Message = dict[str, Any]

_OF_IMAGES = ("pixel", "image", "aspect", "video")  # how inputs begin whose second dimension is no token's

_BLANK = Image.new("RGB", (1, 1))
_SAMPLE, _SAMPLE_ANSWER = "Describe the image.", "A zebra crosses a road."


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

    @cached_property
    def end_id(self) -> int:
        """The token that ends an answer in training: of `end_ids` the one that the template writes after an answer, else the
        tokenizer's, else the smallest.
        """
        after = self._answered_turn.after
        written = self.tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        candidates = [*written, self.tokenizer.eos_token_id, min(self.end_ids)]
        return int(next(id_ for id_ in candidates if id_ in self.end_ids))

    def answer_ids(self, text: str) -> list[int]:
        """An answer's tokens as the policy would decode them after its prompt, without an end token.

        White space before the text is what the template writes there; special tokens in the text are read as plain text.
        """
        if not text.strip():
            return []
        turn = self._answered_turn
        stem = self._plain_ids(turn.stem)
        ids = self._plain_ids(turn.stem + turn.before + text.strip())
        if ids[: len(stem)] == stem:
            return ids[len(stem) :]
        return self._plain_ids(turn.before + text.strip())

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @cached_property
    def _answered_turn(self) -> AnsweredTurn:
        user = user_turn(_BLANK, _SAMPLE)
        answer = {"role": "assistant", "content": [{"type": "text", "text": _SAMPLE_ANSWER}]}
        render = self.processor.apply_chat_template
        prompt = str(render([user], tokenize=False, add_generation_prompt=True))
        whole = str(render([user, answer], tokenize=False))
        stem = prompt
        for token in self.tokenizer.get_added_vocab():
            stem = stem.rsplit(token, 1)[-1] if token else stem
        before, _, after = whole.rpartition(_SAMPLE_ANSWER)
        space = before[len(before.rstrip()) :] if before.startswith(prompt) else prompt[len(prompt.rstrip()) :]
        return AnsweredTurn(stem, space.removeprefix(prompt[len(prompt.rstrip()) :]), after)

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
        """Inputs of user turns with the tokens of answers behind them, [B, L + longest answer], padded on the left.

        Every input that has a value a token (masks, token types) is extended: on the answer as on the prompt's last token.
        """
        inputs = self.inputs(images, texts)
        longest = max(map(len, answers))
        rows, width = inputs["input_ids"].shape
        for name, prompt in inputs.items():
            if prompt.shape[:2] != (rows, width) or name.startswith(_OF_IMAGES):
                continue  # not one for each token
            wider = prompt.new_full((rows, width + longest, *prompt.shape[2:]), self.pad_id * (name == "input_ids"))
            for row, answer in enumerate(answers):
                end = width + longest - len(answer)
                wider[row, end - width : end] = prompt[row]
                # An answer is text, like the prompt's last token.
                wider[row, end:] = torch.tensor(answer).to(wider) if name == "input_ids" else prompt[row, -1]
            inputs[name] = wider
        return inputs

    def hidden(self, inputs: dict[str, Any], layer: int) -> torch.Tensor:
        """Hidden states [B, L, D] of a layer, from the end: -1 is the last one after the final norm.

        What is behind the layer is not computed.
        """
        positions = as_position_ids(prompt_positions(self.model, inputs))
        if layer == -1:
            states: torch.Tensor = self.model.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
            return states
        with up_to_layer(self.model, layer) as reached:
            self.model.model(**inputs, position_ids=positions, use_cache=False)
        return reached[0]


class AnsweredTurn(NamedTuple):
    """What the chat template writes around an answer."""

    stem: str  # the generation prompt after its last special token
    before: str  # white space between the generation prompt and the answer
    after: str  # behind the answer


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
