"""The tiny policy: a `LlavaForConditionalGeneration` with its own tokenizer, processor and chat template.

Nothing is special about it: once saved, it loads as any checkpoint does, with `AutoModelForImageTextToText` and
`AutoProcessor`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tasks.core.demo.captions import ONE_OBJECT, PROMPTS, TWO_OBJECTS, caption, caption_text, sentence
from tasks.core.demo.glyphs import GLYPHS
from tasks.core.demo.scenes import SIDE, sample_scenes
from tasks.core.demo.train_vision import PIXEL_MEAN, PIXEL_STD
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import (  # noqa: E402
    CLIPImageProcessor,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

PAD, BOS, EOS, IMAGE, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<image>", "<user>", "<assistant>"
CONTEXT = 512  # positions of the language model

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<assistant>' }}{% generation %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ '<user>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def _corpus() -> Iterator[str]:
    """Every word the world knows, and the usual ones around them, often enough to become one token each."""
    for _ in range(20):
        yield from PROMPTS
        for name in GLYPHS:
            for manner in ONE_OBJECT:
                counts = len(ONE_OBJECT[manner]), len(TWO_OBJECTS[manner])
                yield " ".join(sentence([name], manner, template).text for template in range(counts[0]))
                yield " ".join(sentence([name, name], manner, template).text for template in range(counts[1]))
            yield f"Is there a {name} in the image? Yes. No. Answer yes or no: are there any {name}s?"
            yield f"The photo shows one {name}, two {name}s and three other things; what is on the left or right?"
    rng = random.Random("tokenizer")
    for scene in sample_scenes("tokenizer", 500):
        yield caption_text(caption(rng, scene))


def build_tokenizer(*, append_eos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from the world's own sentences: any text round-trips exactly, known words are one token.

    `append_eos` is for the scorer, whose text tower reads the state of the last token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=10,
        special_tokens=[PAD, BOS, EOS, IMAGE, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if append_eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={} if append_eos else {"image_token": IMAGE},
        padding_side="right" if append_eos else "left",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token the vocabulary must hold."""
    token_index = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(token_index, int):
        raise ValueError(f"{token!r} is not one token")
    return token_index


def build_processor(tokenizer: PreTrainedTokenizerFast, patch: int) -> LlavaProcessor:
    """Image preprocessing, placeholder expansion and the chat template."""
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_policy(
    tower: CLIPVisionModel, tokenizer: PreTrainedTokenizerFast, *, width: int = 128, layers: int = 3
) -> LlavaForConditionalGeneration:
    """A policy whose vision tower starts as a copy of `tower`; the rest is random (seed torch before)."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = copy.deepcopy(tower.config)
    vision.name_or_path = ""  # the checkpoint does not record where the tower was loaded from
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=token_id(tokenizer, IMAGE),
        image_seq_length=tower.embeddings.num_patches,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    model = LlavaForConditionalGeneration(config)
    missing, unexpected = model.model.vision_tower.load_state_dict(tower.state_dict(), strict=False)
    if missing or unexpected:
        raise ValueError(f"the pretrained tower does not fit: missing {missing}, unexpected {unexpected}")
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    return model
