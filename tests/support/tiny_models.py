"""Tiny random models of the architectures a policy may have, each with its own kind of processor, built without a hub.

They say nothing sensible, but they say it as the real ones do: tiles, positions, caches and placeholders are those of the
architecture. Their vocabulary has enough full stops and capital words for sentences to end now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from tasks.core.models.policy import Policy
from tests.support.demo_models import PROMPTS

import transformers as hf  # isort: skip  # after torchvision's operators, which the policy module declares

TILE, PATCH = 28, 14  # pixels
GRID = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]  # (height, width) of a tiled image
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>"
WORDS = [
    "There is a dog on the left and two cats lie by it . It sits near an old red car ! Is one bird here ?",
    "A man walks to his house with some bread . The sky has no cloud , but trees are green . She looks up ; he waits :",
    "Two boys play . In front stands Mr. No Dr. knows 3 or 1 . We see many more . They run ! Who ? Yes ! No .",
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<assistant>' if message['role'] == 'assistant' else '<user>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tokenizer(image: str, *others: str) -> hf.PreTrainedTokenizerFast:
    """Whole words, each with the space before it; `image` has the last id, as Mllama wants it."""
    prompts = [word for prompt in PROMPTS for word in prompt.rstrip(".?").split()]
    marks = [".", "!", "?", ",", ";", ":", "\n"]
    words = [f"▁{word.rstrip('.')}" for word in [*" ".join(WORDS).split(), *prompts] if word not in marks]
    special = [PAD, BOS, EOS, UNKNOWN]
    markers = [USER, ASSISTANT, *others, image]
    vocabulary = dict.fromkeys([*special, *marks, "▁", *words, *markers])
    built = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex("[.!?,;:\n]"), "isolated")]
    )
    built.decoder = decoders.Metaspace()
    built.add_special_tokens([*special, *markers])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": image},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _text(tok: hf.PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """The language model's part of a configuration."""
    ids = {name: getattr(tok, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {**TEXT, "vocab_size": len(tok), **ids, **more}


def _template(image: str) -> str:
    return TEMPLATE.replace("IMAGE", image)


Parts = tuple[Any, Any]  # a configuration and the processor


def _llava() -> Parts:
    tok = tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=TILE, patch_size=PATCH),
        text_config=hf.LlamaConfig(**_text(tok)),
        image_token_index=tok.image_token_id,
        image_seq_length=(TILE // PATCH) ** 2,
    )
    images = hf.CLIPImageProcessor(size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE})
    return config, hf.LlavaProcessor(images, tok, PATCH, "default", _template("<image>"), num_additional_image_tokens=1)


def _llava_next() -> Parts:
    tok = tokenizer("<image>")
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=TILE, patch_size=PATCH),
        text_config=hf.LlamaConfig(**_text(tok)),
        image_token_index=tok.image_token_id,
        image_grid_pinpoints=GRID,
    )
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID
    )
    return config, hf.LlavaNextProcessor(
        images, tok, PATCH, "default", _template("<image>"), num_additional_image_tokens=1
    )


def _llava_onevision() -> Parts:
    tok = tokenizer("<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=PATCH, vision_use_head=False),
        text_config=hf.Qwen2Config(**_text(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRID,
    )
    images = hf.LlavaOnevisionImageProcessor(size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID)
    return config, hf.LlavaOnevisionProcessor(
        images, tok, hf.LlavaOnevisionVideoProcessor(), (TILE // PATCH) ** 2, "full", _template("<image>")
    )


def _qwen(config: Callable[..., Any], processor: Callable[..., Any], vision: dict[str, Any]) -> Parts:
    start, pad, end, video = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
    tok = tokenizer(pad, start, end, video)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    built = config(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH, **vision},
        text_config=_text(tok, rope_parameters=rope),
        image_token_id=tok.image_token_id,
        video_token_id=tok.convert_tokens_to_ids(video),
        vision_start_token_id=tok.convert_tokens_to_ids(start),
        vision_end_token_id=tok.convert_tokens_to_ids(end),
    )
    images = hf.Qwen2VLImageProcessor(size={"shortest_edge": TILE**2, "longest_edge": 12 * TILE**2}, patch_size=PATCH)
    return built, processor(images, tok, hf.Qwen2VLVideoProcessor(), chat_template=_template(f"{start}{pad}{end}"))


def _qwen2_vl() -> Parts:
    return _qwen(hf.Qwen2VLConfig, hf.Qwen2VLProcessor, {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2})


def _qwen2_5_vl() -> Parts:
    vision = {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 64, "window_size": 2 * TILE}
    return _qwen(hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLProcessor, {**vision, "fullatt_block_indexes": [1]})


def _idefics3(config: Callable[..., Any] = hf.Idefics3Config) -> Parts:
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tok = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles)
    patch, factor = PATCH // 2, 2
    built = config(
        vision_config={**VISION, "image_size": TILE, "patch_size": patch},
        text_config=hf.LlamaConfig(**_text(tok)),
        image_token_id=tok.image_token_id,
        scale_factor=factor,
    )
    images = hf.Idefics3ImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    per_tile = (TILE // patch // factor) ** 2
    return built, hf.Idefics3Processor(images, tok, image_seq_len=per_tile, chat_template=_template("<image>"))


def _smolvlm() -> Parts:
    """With the processor of Idefics3, which differs in videos only: SmolVLM's own needs one more package."""
    return _idefics3(hf.SmolVLMConfig)


def _mllama() -> Parts:
    tok = tokenizer("<|image|>")
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "attention_heads": 2}
    levels = [0, 1]
    config = hf.MllamaConfig(
        vision_config={
            **vision,
            "num_global_layers": 1,
            "image_size": TILE,
            "patch_size": PATCH,
            "intermediate_layers_indices": levels,
            "vision_output_dim": 32 * (1 + len(levels)),
        },
        # The image token is one past the output's last id, as in the released models.
        text_config=_text(tok, vocab_size=len(tok) - 1, num_hidden_layers=4, cross_attention_layers=[1, 3]),
        image_token_index=tok.image_token_id,
    )
    images = hf.MllamaImageProcessor(size={"height": TILE, "width": TILE}, max_image_tiles=4)
    return config, hf.MllamaProcessor(images, tok, chat_template=_template("<|image|>"))


_PARTS: dict[str, Callable[[], Parts]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "mllama": _mllama,
}
ARCHITECTURES = tuple(_PARTS)


def _draw_weights(model: Any, tok: hf.PreTrainedTokenizerFast) -> None:
    """Weights wide enough for texts and images to matter; with the library's 0.02 one token is repeated for ever.

    Component 0 of the text's hidden states is constant, so that column 0 of the output is a bias: answers and sentences
    end now and then, and placeholders are never said.
    """
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif "gate" in name.rsplit(".", 1)[-1]:  # zero at first: Mllama would not see its image
            torch.nn.init.constant_(weight, 0.5)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight[0])
    words, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    torch.nn.init.normal_(words)
    torch.nn.init.constant_(words[:, 0], 2.0)
    torch.nn.init.normal_(output, std=3 * output.shape[1] ** -0.5)
    torch.nn.init.zeros_(output[:, 0])
    output[tok.eos_token_id] *= 0.3  # about as likely everywhere
    for token, bias in {EOS: 4.0, ".": 2.0, "!": 2.0, "?": 2.0}.items():
        output[tok.convert_tokens_to_ids(token), 0] = bias
    never = {"▁", *(token.content for token in tok.added_tokens_decoder.values())} - {EOS}
    indices = torch.tensor(tok.convert_tokens_to_ids(sorted(never)))
    output[indices[indices < len(output)], 0] = -20.0


@lru_cache
def tiny(name: str) -> Policy:
    """The tiny policy of an architecture, with the same weights each time; not to be trained, it is shared."""
    config, processor = _PARTS[name]()
    tok = processor.tokenizer
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        _draw_weights(model, tok)
    for token in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.generation_config, token, getattr(tok, token))
    return Policy(model.eval().requires_grad_(False), processor, f"tiny {name}")
