"""LLaVA's family: a CLIP or SigLIP tower, a projector, and a language model of any kind."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import EOS, GRID, PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes, tokenizer

PER_TILE = (TILE // PATCH) ** 2


def _clip() -> hf.CLIPVisionConfig:
    return hf.CLIPVisionConfig(**VISION, image_size=TILE, patch_size=PATCH)


def _cropped() -> hf.CLIPImageProcessor:
    return hf.CLIPImageProcessor(size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE})


def _tiled() -> hf.LlavaNextImageProcessor:
    return hf.LlavaNextImageProcessor(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID
    )


def _llava_with(tok: hf.PreTrainedTokenizerFast, template: str) -> Parts:
    config = hf.LlavaConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_index=tok.image_token_id,
        image_seq_length=PER_TILE,
    )
    return Parts(config, hf.LlavaProcessor(_cropped(), tok, PATCH, "default", template, num_additional_image_tokens=1))


def llava() -> Parts:
    """LLaVA: one image size; a template of markers."""
    return _llava_with(tokenizer("<image>"), templates.markers("<image>"))


def llava_vicuna() -> Parts:
    """LLaVA-1.5 as released: roles as words, the first token from the tokenizer, no end in the template."""
    tok = chat_tokenizer({"image_token": "<image>"}, bos="<s>", eos=EOS, adds_bos=True)
    return _llava_with(tok, templates.vicuna("<image>"))


def _next_with(tok: hf.PreTrainedTokenizerFast, template: str) -> Parts:
    config = hf.LlavaNextConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_index=tok.image_token_id,
        image_grid_pinpoints=GRID,
    )
    return Parts(
        config, hf.LlavaNextProcessor(_tiled(), tok, PATCH, "default", template, num_additional_image_tokens=1)
    )


def llava_next() -> Parts:
    """LLaVA-NeXT: tiles with newline features; a template of markers."""
    return _next_with(tokenizer("<image>"), templates.markers("<image>"))


def llava_next_vicuna() -> Parts:
    """LLaVA-NeXT on Vicuna: the first token from the tokenizer, as in LLaVA-1.5."""
    tok = chat_tokenizer({"image_token": "<image>"}, bos="<s>", eos=EOS, adds_bos=True)
    return _next_with(tok, templates.vicuna("<image>"))


def _onevision_with(tok: hf.PreTrainedTokenizerFast, template: str, ends: tuple[str, ...]) -> Parts:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=PATCH, vision_use_head=False),
        text_config=hf.Qwen2Config(**text_sizes(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRID,
    )
    images = hf.LlavaOnevisionImageProcessor(size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID)
    processor = hf.LlavaOnevisionProcessor(images, tok, hf.LlavaOnevisionVideoProcessor(), PER_TILE, "full", template)
    return Parts(config, processor, ends)


def llava_onevision() -> Parts:
    """LLaVA-OneVision: tiles, a SigLIP tower; a template of markers."""
    return _onevision_with(tokenizer("<image>", "<video>"), templates.markers("<image>"), (EOS,))


def llava_onevision_chatml() -> Parts:
    """LLaVA-OneVision as released: a space after `assistant` in a finished turn, none in the generation prompt."""
    end = "<|im_end|>"
    tok = chat_tokenizer(
        {"image_token": "<image>", "video_token": "<video>"}, "<|im_start|>", end, eos=end, pad="<|endoftext|>"
    )
    return _onevision_with(tok, templates.onevision("<image>"), (end,))


def vipllava() -> Parts:
    """ViP-LLaVA: features of several of the tower's layers side by side."""
    tok = chat_tokenizer({"image_token": "<image>"}, bos="<s>", eos=EOS, adds_bos=True)
    config = hf.VipLlavaConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_index=tok.image_token_id,
        image_seq_length=PER_TILE,
        vision_feature_layer=[-1, -2, 0],
    )
    template = templates.vicuna("<image>").replace("USER", "Human")
    return Parts(config, hf.LlavaProcessor(_cropped(), tok, PATCH, "default", template, num_additional_image_tokens=1))


def llava_next_video() -> Parts:
    """LLaVA-NeXT-Video, asked about an image."""
    tok = chat_tokenizer({"image_token": "<image>", "video_token": "<video>"}, bos="<s>", eos=EOS, adds_bos=True)
    config = hf.LlavaNextVideoConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        image_grid_pinpoints=GRID,
    )
    processor = hf.LlavaNextVideoProcessor(
        hf.LlavaNextVideoVideoProcessor(),
        _tiled(),
        tok,
        chat_template=templates.vicuna("<image>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Parts(config, processor)


def video_llava() -> Parts:
    """Video-LLaVA, asked about an image: a tower each for images and videos."""
    tok = chat_tokenizer({"image_token": "<image>", "video_token": "<video>"}, bos="<s>", eos=EOS, adds_bos=True)
    config = hf.VideoLlavaConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        image_seq_length=PER_TILE,
    )
    size = {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
    processor = hf.VideoLlavaProcessor(
        hf.VideoLlavaImageProcessor(**size),
        hf.VideoLlavaVideoProcessor(**size),
        tok,
        patch_size=PATCH,
        chat_template=templates.vicuna("<image>"),
    )
    return Parts(config, processor)


BUILDERS = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "llava_vicuna": llava_vicuna,
    "llava_next_vicuna": llava_next_vicuna,
    "llava_onevision_chatml": llava_onevision_chatml,
    "vipllava": vipllava,
    "llava_next_video": llava_next_video,
    "video_llava": video_llava,
}
