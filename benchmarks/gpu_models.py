"""The models of the GPU benchmark: released shapes with random weights, built on the device; nothing is downloaded.

Texts are words of six letters. Full stops and end tokens are as likely as in captions, so that sentences have about 20 tokens
and answers about 5 sentences, whatever the layers compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from tasks.core.models.policy import Policy
from tasks.core.models.scorer import Scorer
from tasks.core.models.transformers_scorer import TransformersEncoder

import transformers as hf  # isort: skip  # after torchvision's operators, which the policy module declares

PROMPT = "Describe the following image."
PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>"
STOP_SHARE, END_SHARE = 1 / 20, 1 / 100  # of drawn tokens
SPREAD = 3.0  # standard deviation of other tokens' logits
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<assistant>' if message['role'] == 'assistant' else '<user>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    vocabulary: int
    text: dict[str, int]  # of the LLaVA-NeXT
    qwen_text: dict[str, int]
    vision: dict[str, int]  # a CLIP tower
    qwen_vision: dict[str, Any]
    side: int  # pixels of a tile, for LLaVA-NeXT and the scorer
    scorer_text: dict[str, int]
    scorer_vocabulary: int
    images: tuple[int, int]  # width, height of the photographs


def _text(hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32768,
    }


def _tower(hidden: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


SIZES = {
    # LLaVA-NeXT-Mistral-7B with CLIP-L-336; Qwen2.5-VL-7B; ViT-L-14-336
    "7b": Size(
        vocabulary=32064,
        text=_text(4096, 14336, 32, 32, 8),
        qwen_text=_text(3584, 18944, 28, 28, 4),
        vision=_tower(1024, 4096, 24, 16),
        qwen_vision={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112},
        side=336,
        scorer_text=_tower(768, 3072, 12, 12),
        scorer_vocabulary=49408,
        images=(640, 480),
    ),
    "tiny": Size(
        vocabulary=400,
        text=_text(64, 128, 2, 4, 2),
        qwen_text=_text(64, 128, 2, 4, 2),
        vision=_tower(32, 64, 2, 2),
        qwen_vision={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "window_size": 56},
        side=28,
        scorer_text=_tower(32, 64, 2, 2),
        scorer_vocabulary=400,
        images=(80, 60),
    ),
}


def words_tokenizer(count: int, *markers: str, start: bool = False, limit: int | None = None) -> Any:
    """`count` tokens: punctuation, words that begin with a capital, special tokens last; `start`: add them as CLIP does."""
    fixed = [".", "!", "?", ",", "▁", *(f"▁{word.strip('.')}" for word in PROMPT.split())]
    special = [PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT, *markers]
    made = [f"▁{_word(index)}" for index in range(count - len(fixed) - len(special))]
    built = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*fixed, *made, *special])}, unk_token=UNKNOWN))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex("[.!?,]"), "isolated")]
    )
    built.decoder = decoders.Metaspace()
    built.add_special_tokens(special)
    if start:
        ids = [(token, built.token_to_id(token)) for token in (BOS, EOS)]
        built.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ids)
    names = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN}
    more = {"model_max_length": limit} if limit else {}
    if markers:
        more["extra_special_tokens"] = {"image_token": markers[0]}
    side = "right" if start else "left"
    return hf.PreTrainedTokenizerFast(tokenizer_object=built, padding_side=side, **names, **more)


def _word(index: int) -> str:
    letters = []
    for place in range(6):
        letters.append("aeiou"[index % 5] if place % 2 else "bcdfghklmnprstvz"[index % 16])
        index //= 5 if place % 2 else 16
    return "".join(letters).capitalize()


Parts = tuple[Any, Any]  # configuration and processor


def _ids(tok: Any) -> dict[str, Any]:
    return {name: getattr(tok, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def _llava_next(size: Size) -> Parts:
    tok = words_tokenizer(size.vocabulary, "<image>")
    side, patch = size.side, 14
    grid = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**size.vision, image_size=side, patch_size=patch),
        text_config=hf.MistralConfig(**size.text, vocab_size=len(tok), sliding_window=None, **_ids(tok)),
        image_token_index=tok.image_token_id,
        image_grid_pinpoints=grid,
    )
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_grid_pinpoints=grid
    )
    template = TEMPLATE.replace("IMAGE", "<image>")
    return config, hf.LlavaNextProcessor(images, tok, patch, "default", template, num_additional_image_tokens=1)


def _qwen(size: Size) -> Parts:
    start, pad, end, video = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
    tok = words_tokenizer(152064 if size.vocabulary > 1000 else size.vocabulary, pad, start, end, video)
    hidden, heads = size.qwen_text["hidden_size"], size.qwen_text["num_attention_heads"]
    half = hidden // heads // 2  # rotary frequencies, shared out over time, height and width
    section = [half // 4, (half - half // 4) // 2, half - half // 4 - (half - half // 4) // 2]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    depth = size.qwen_vision["depth"]
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            **size.qwen_vision,
            "out_hidden_size": hidden,
            "patch_size": 14,
            "fullatt_block_indexes": [at for at in range(depth) if at % 8 == 7] or [depth - 1],
        },
        text_config={**size.qwen_text, "vocab_size": len(tok), "rope_parameters": rope, **_ids(tok)},
        tie_word_embeddings=False,
        image_token_id=tok.image_token_id,
        video_token_id=tok.convert_tokens_to_ids(video),
        vision_start_token_id=tok.convert_tokens_to_ids(start),
        vision_end_token_id=tok.convert_tokens_to_ids(end),
    )
    images = hf.Qwen2VLImageProcessor(size={"shortest_edge": 56**2, "longest_edge": 1280 * 28**2}, patch_size=14)
    template = TEMPLATE.replace("IMAGE", f"{start}{pad}{end}")
    return config, hf.Qwen2_5_VLProcessor(images, tok, hf.Qwen2VLVideoProcessor(), chat_template=template)


POLICIES: dict[str, Callable[[Size], Parts]] = {"LLaVA-NeXT": _llava_next, "Qwen2.5-VL": _qwen}


def build_policy(name: str, size: Size, device: str, dtype: torch.dtype) -> Policy:
    """A policy of `POLICIES` with random weights, the same each time on the same kind of device."""
    config, processor = POLICIES[name](size)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []), torch.no_grad():
        torch.manual_seed(0)
        with torch.device(device):
            model: Any = hf.AutoModelForImageTextToText.from_config(config, dtype=dtype)
        _draw_language(model, processor.tokenizer)
    for token, id_ in _ids(processor.tokenizer).items():
        setattr(model.generation_config, token, id_)
    return Policy(model.eval().requires_grad_(False), processor, f"random {name}")


def _draw_language(model: Any, tok: Any) -> None:
    """Weights whose layers matter as those of trained models do, and whose full stops and ends have their shares.

    Component 0 of a text's hidden states is constant, so that column 0 of the head is a bias.
    """
    language, head = model.model.language_model, model.get_output_embeddings().weight
    for name, weight in language.named_parameters():
        if weight.dim() > 1:
            last = name.endswith(("o_proj.weight", "down_proj.weight"))
            depth = math.sqrt(2 * language.config.num_hidden_layers) if last else 1.0
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5 / depth)
            if last:
                torch.nn.init.zeros_(weight[0])
    words = language.get_input_embeddings().weight
    torch.nn.init.normal_(words)
    words[:, 0] = 2.0
    torch.nn.init.normal_(head, std=SPREAD * head.shape[1] ** -0.5)
    head[:, 0] = 0.0
    sample = torch.arange(32, device=head.device)[None]
    constant = float(language(input_ids=sample, use_cache=False).last_hidden_state[0, :, 0].float().mean())
    level = math.log(len(head)) + SPREAD**2 / 2  # of the logarithm of all other tokens' summed exponentials
    for token, share in ((".", STOP_SHARE), (EOS, END_SHARE)):
        at = tok.convert_tokens_to_ids(token)
        head[at] = 0.0
        head[at, 0] = (level + math.log(share)) / constant
    banned = sorted({"▁", *tok.get_added_vocab()} - {EOS})
    never = torch.tensor(tok.convert_tokens_to_ids(banned), device=head.device)
    head[never[never < len(head)], 0] = -50.0 / constant


def build_scorer(size: Size, device: str, dtype: torch.dtype) -> Scorer:
    """A CLIP with random weights."""
    context = 77
    tok = words_tokenizer(size.scorer_vocabulary, start=True, limit=context)
    config = hf.CLIPConfig(
        text_config={**size.scorer_text, "vocab_size": len(tok), "max_position_embeddings": context, **_ids(tok)},
        vision_config={**size.vision, "image_size": size.side, "patch_size": 14},
        projection_dim=size.scorer_text["hidden_size"],
    )
    images = hf.CLIPImageProcessor(
        size={"shortest_edge": size.side}, crop_size={"height": size.side, "width": size.side}
    )
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []), torch.device(device):
        torch.manual_seed(0)
        model = hf.AutoModel.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    return Scorer(TransformersEncoder(model, hf.CLIPProcessor(images, tok), context), "random CLIP")
