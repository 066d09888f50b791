"""The tiny scorer: an ordinary `open_clip.CLIP` and the configuration open_clip reads it back with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.core.demo.train_vision import PIXEL_MEAN, PIXEL_STD
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers and open_clip

from open_clip.model import CLIP  # noqa: E402
from transformers import CLIPVisionModel, PreTrainedTokenizerFast  # noqa: E402

TEXT_CONTEXT = 32  # tokens, the end token included
EMBED_DIM = 128
FIRST_SCALE = 12.0  # logit = scale * (cosine - threshold), both learned
FIRST_THRESHOLD = 0.3


def model_cfg(tower: CLIPVisionModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """`model_cfg` of an open_clip_config.json, for a vision tower of `tower`'s shape."""
    vision = tower.config
    return {
        "embed_dim": EMBED_DIM,
        "init_logit_bias": 0.0,
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "patch_size": vision.patch_size,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": TEXT_CONTEXT,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "tokenizer",  # any name: a local folder's own files are read
            "width": 128,
            "heads": 4,
            "layers": 2,
            "pool_type": "eos",
            "pad_id": tokenizer.pad_token_id,
            "eos_id": tokenizer.eos_token_id,
        },
    }


def preprocess_cfg() -> dict[str, Any]:
    """`preprocess_cfg` of an open_clip_config.json: the same normalisation as the policy's."""
    return {
        "mean": list(PIXEL_MEAN),
        "std": list(PIXEL_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


def build_scorer(tower: CLIPVisionModel, config: dict[str, Any]) -> CLIP:
    """A scorer whose vision tower starts as a copy of `tower`; the rest is random (seed torch before)."""
    model = CLIP(**config)
    missing, unexpected = model.visual.load_state_dict(_converted(tower.state_dict()), strict=False)
    if set(missing) != {"proj"} or unexpected:
        raise ValueError(f"the pretrained tower does not fit: missing {missing}, unexpected {unexpected}")
    with torch.no_grad():
        model.logit_scale.fill_(torch.tensor(FIRST_SCALE).log())
        model.logit_bias.fill_(-FIRST_SCALE * FIRST_THRESHOLD)
    return model


def _converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformers CLIP vision state under open_clip's names; query, key and value are one matrix there."""
    state = {name.removeprefix("vision_model."): tensor for name, tensor in state.items()}
    converted = {
        "class_embedding": state["embeddings.class_embedding"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "conv1.weight": state["embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        converted[f"ln_pre.{kind}"] = state[f"pre_layrnorm.{kind}"]
        converted[f"ln_post.{kind}"] = state[f"post_layernorm.{kind}"]
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    for layer in layers:
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [state[f"{old}.self_attn.{name}_proj.{kind}"] for name in ("q", "k", "v")]
            converted[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
            converted[f"{new}.attn.out_proj.{kind}"] = state[f"{old}.self_attn.out_proj.{kind}"]
            converted[f"{new}.ln_1.{kind}"] = state[f"{old}.layer_norm1.{kind}"]
            converted[f"{new}.ln_2.{kind}"] = state[f"{old}.layer_norm2.{kind}"]
            converted[f"{new}.mlp.c_fc.{kind}"] = state[f"{old}.mlp.fc1.{kind}"]
            converted[f"{new}.mlp.c_proj.{kind}"] = state[f"{old}.mlp.fc2.{kind}"]
    return converted
