"""Tiny random models of the architectures a policy may have, each with its own kind of processor, built without a hub.

They say nothing sensible, but they say it as the real ones do: tiles, positions, caches, placeholders and chat templates are
those of the architecture. Their vocabulary has enough full stops and capital words for sentences to end now and then.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tasks.core.models.policy import Policy
from tests.support.tiny import (
    cohere,
    deepseek,
    ernie,
    exaone,
    experts,
    gemma,
    glm,
    idefics,
    internvl,
    lfm2,
    llava,
    mistral,
    mllama,
    qwen,
    refused,
)
from tests.support.tiny.weights import draw_weights

import transformers as hf  # isort: skip  # after torchvision's operators, which the policy module declares

_FAMILIES = (
    llava,
    qwen,
    idefics,
    mllama,
    gemma,
    internvl,
    glm,
    mistral,
    cohere,
    lfm2,
    deepseek,
    ernie,
    experts,
    exaone,
    refused,
)
BUILDERS = {name: builder for family in _FAMILIES for name, builder in family.BUILDERS.items()}
ARCHITECTURES = (
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "idefics3",
    "smolvlm",
    "mllama",
    "qwen3_vl",
    "internvl",
    "gemma3",
    "qwen3_5",
)
"""Those that every test of exactness runs on."""
REFUSED = ("florence2", "blip2", "llama4", "paligemma")
"""Those that can't be loaded as a policy."""
MORE_ARCHITECTURES = tuple(name for name in BUILDERS if name not in {*ARCHITECTURES, *REFUSED})
"""Those that one cheap test each runs on."""


def build(name: str) -> tuple[Any, Any]:
    """(model in float32, processor) of an architecture, with the same weights each time."""
    config, processor, ends, seed = BUILDERS[name]()
    tok = processor.tokenizer
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        draw_weights(model, tok, ends)
    ids = tok.convert_tokens_to_ids(list(ends))
    model.generation_config.eos_token_id = ids if len(ids) > 1 else ids[0]
    for token in ("pad_token_id", "bos_token_id"):
        setattr(model.generation_config, token, getattr(tok, token))
    return model.eval(), processor


@lru_cache
def tiny(name: str) -> Policy:
    """The tiny policy of an architecture; not to be trained, it is shared."""
    model, processor = build(name)
    return Policy(model.requires_grad_(False), processor, f"tiny {name}")


def save_tiny(name: str, folder: Path) -> Path:
    """Write a checkpoint folder that `load_policy` loads: the model's weights, its generation config and its processor."""
    model, processor = build(name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
