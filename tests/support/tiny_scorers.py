"""Tiny random scorers of transformers, saved as released ones are: weights, configuration, image processor and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, processors

from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()

import transformers as hf  # noqa: E402

CONTEXT = 16  # tokens
SIDE, PATCH = 32, 16  # pixels
LETTERS = "abcdefghijklmnopqrstuvwxyz.<>/"
PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
KINDS = ("clip", "siglip", "siglip2")
_LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(kind: str) -> Any:
    """Letters, with the class that a checkpoint's model type selects; SigLIP's own wants one more package."""
    special = {token: at for at, token in enumerate((PAD, UNKNOWN, BOS, EOS))}
    names = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": BOS, "eos_token": EOS}
    options = {**names, "model_max_length": CONTEXT, "padding_side": "right"}
    if kind == "clip":
        letters = [f"{letter}{end}" for end in ("", "</w>") for letter in LETTERS]
        return hf.CLIPTokenizer(vocab={**special, **_numbered(letters)}, merges=[], **options)
    vocabulary = {**special, **_numbered(["▁", *LETTERS])}
    end = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, special[EOS])])
    if kind == "siglip2":
        tok = hf.Siglip2Tokenizer(vocab=vocabulary, merges=[], **options)
        tok.backend_tokenizer.post_processor = end
        return tok
    built = Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN))
    built.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    built.post_processor = end
    return hf.PreTrainedTokenizerFast(tokenizer_object=built, **options)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: at for at, token in enumerate(tokens, start=4)}


def save_tiny_scorer(kind: str, folder: Path) -> Path:
    """Write a model of one of `KINDS`, the same weights each time."""
    tok = tokenizer(kind)
    text = {
        **_LAYERS, "vocab_size": len(tok), "max_position_embeddings": CONTEXT, "pad_token_id": tok.pad_token_id,
        "bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id,
    }  # fmt: skip
    processor: Any
    if kind == "clip":
        vision = {**_LAYERS, "image_size": SIDE, "patch_size": PATCH}
        config: Any = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        images: Any = hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
        processor = hf.CLIPProcessor(images, tok)
    elif kind == "siglip":
        vision = {**_LAYERS, "image_size": SIDE, "patch_size": PATCH}
        config = hf.SiglipConfig(text_config=text, vision_config=vision)
        processor = hf.SiglipProcessor(hf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}), tok)
    else:
        vision = {**_LAYERS, "num_patches": 16, "patch_size": PATCH}
        config = hf.Siglip2Config(text_config=text, vision_config=vision)
        processor = hf.Siglip2Processor(hf.Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=9), tok)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = hf.AutoModel.from_config(config)
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
