"""Architectures that can't be a policy here: an encoder and a decoder, no chat template, attention in chunks."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import EOS, PATCH, TILE, Parts, chat_tokenizer, text_sizes


def florence2() -> Parts:
    """Florence-2: an encoder reads image and task, a decoder writes; no chat template."""
    tok = chat_tokenizer({"image_token": "<image>"}, bos="<s>", eos=EOS, adds_bos=True)
    tower = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [16, 32],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 4,
        "projection_dim": 64,
    }
    text = hf.BartConfig(
        vocab_size=len(tok),
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        decoder_start_token_id=tok.eos_token_id,
    )
    config = hf.Florence2Config(
        vision_config=tower, text_config=text, image_token_id=tok.image_token_id, tie_word_embeddings=True
    )
    images = hf.CLIPImageProcessor(
        size={"height": 2 * TILE, "width": 2 * TILE}, crop_size={"height": 2 * TILE, "width": 2 * TILE}
    )
    images.image_seq_length = (2 * TILE // 8) ** 2 + 1
    return Parts(config, hf.Florence2Processor(images, tok))


def blip2() -> Parts:
    """BLIP-2: queries before a plain language model; no chat template."""
    tok = chat_tokenizer({}, bos="<s>", eos=EOS, adds_bos=True)
    queries = 4
    processor = hf.Blip2Processor(hf.BlipImageProcessor(size={"height": TILE, "width": TILE}), tok, queries)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = hf.Blip2Config(
        vision_config={**sizes, "image_size": TILE, "patch_size": PATCH},
        qformer_config={**sizes, "encoder_hidden_size": 32, "vocab_size": len(tok)},
        text_config=hf.OPTConfig(
            vocab_size=len(tok),
            hidden_size=64,
            num_hidden_layers=2,
            ffn_dim=64,
            num_attention_heads=4,
            word_embed_proj_dim=64,
            max_position_embeddings=256,
            pad_token_id=tok.pad_token_id,
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
        ),
        num_query_tokens=queries,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    return Parts(config, processor)


def llama4() -> Parts:
    """Llama 4: attention in chunks, experts, tiles."""
    end = "<|eot|>"
    marks = ("<|image_start|>", "<|image_end|>", "<|image|>", "<|tile_x_separator|>", "<|tile_y_separator|>")
    others = ("<|header_start|>", "<|header_end|>", *marks)
    tok = chat_tokenizer({"image_token": "<|patch|>"}, *others, bos="<|begin_of_text|>", eos=end, adds_bos=True)
    config = hf.Llama4Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH // 2,
            "vision_output_dim": 64,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
        },
        text_config=text_sizes(
            tok,
            head_dim=16,
            intermediate_size_mlp=64,
            num_local_experts=2,
            attention_chunk_size=8,
            no_rope_layers=[1, 1, 0],
            interleave_moe_layer_step=2,
        ),
        boi_token_index=tok.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tok.convert_tokens_to_ids("<|image_end|>"),
        image_token_index=tok.image_token_id,
    )
    images = hf.Llama4ImageProcessor(size={"height": TILE, "width": TILE}, max_patches=4)
    template = templates.header("<|image|>")
    processor = hf.Llama4Processor(images, tok, patch_size=PATCH // 2, pixel_shuffle_ratio=0.5, chat_template=template)
    return Parts(config, processor, (end,))


BUILDERS = {"florence2": florence2, "blip2": blip2, "llama4": llama4}
