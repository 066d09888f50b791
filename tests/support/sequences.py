"""What a policy reads and learns, seen at its forward; and templates as released checkpoints have them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing

from tasks.core.models.policy import Policy
from tests.support.tiny.words import BOS
from tests.support.tiny_models import ARCHITECTURES, tiny

# LLaVA-1.5's: no first token in it, for the tokenizer adds it, and no end token behind an answer.
VICUNA = (
    "{% for message in messages %}{{ '<user>' if message['role'] == 'user' else ' <assistant>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ '\n' + part['text'] if message['role'] == 'user' "
    "else ' ' + part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)
# LLaVA-OneVision's: a space behind the role of an answer that is there, none where an answer is to be decoded.
SPACED = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '> ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ '\n' + part['text'] }}{% endif %}"
    "{% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>\n' }}{% endif %}"
)
POLICIES = (*ARCHITECTURES, "vicuna", "spaced")


def fresh(name: str) -> Policy:
    """A policy of an architecture, or of one of the two templates, to train."""
    shared = tiny({"vicuna": "llava", "spaced": "llava_onevision"}.get(name, name))
    processor = copy.deepcopy(shared.processor)
    if name == "vicuna":
        processor.chat_template = VICUNA
        tok = processor.tokenizer
        tok.backend_tokenizer.post_processor = TemplateProcessing(f"{BOS} $A", None, [(BOS, tok.bos_token_id)])
    elif name == "spaced":
        processor.chat_template = SPACED
    return replace(shared, model=copy.deepcopy(shared.model), processor=processor)


@contextmanager
def reads(policy: Policy) -> Iterator[list[list[int]]]:
    """Within the context: the token ids of every row that the model reads without a cache, padding left out."""
    rows: list[list[int]] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("use_cache") is False and kwargs.get("input_ids") is not None:
            for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
                rows.append(ids[mask.bool()].tolist())

    hook = policy.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def end_text(policy: Policy) -> str:
    """The token that ends an answer, as text."""
    return str(policy.tokenizer.convert_ids_to_tokens(policy.end_id))


def rendered(policy: Policy, prompt: str, answer: str) -> str:
    """Prompt and answer as they follow each other when the policy decodes, its end token behind them."""
    user = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    text = str(policy.processor.apply_chat_template(user, tokenize=False, add_generation_prompt=True))
    space = " " if policy.processor.chat_template == VICUNA else ""  # it stands before an answer, not in the prompt
    return f"{text}{space}{answer}{end_text(policy) if answer else ''}"


def whole_inputs(policy: Policy, image: Any, text: str) -> dict[str, Any]:
    """Inputs of a rendered text, all made by the processor."""
    bos = policy.tokenizer.bos_token
    batch = policy.processor(
        text=[text], images=[[image]], return_tensors="pt", add_special_tokens=not (bos and text.startswith(bos))
    )
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
