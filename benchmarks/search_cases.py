"""What the search benchmark searches: the shipped demo models, and a LLaVA with as many image tokens as a small real one."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from benchmarks.search_shapes import Case
from tasks.core.demo.scenes import draw_scene, sample_scenes
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.value import StateValue, ValueModel, ValueSpec
from tasks.core.search.contract import Settings
from tasks.core.search.temperatures import spread_temperatures

from transformers import (  # isort: skip  # after torchvision's operators, which the policy module declares
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
)

DEMO = Path(__file__).parent.parent / "deployments" / "demo" / "policy"
PROMPT = "Describe the following image."
TEMPERATURES = (0.1, 0.3, 0.5, 0.7, 0.9)
SIDE, PATCH = 224, 16  # pixels


def demo_case(images: int, candidates: int = 6) -> Case:
    """The shipped policy, with a value model that has learned nothing: how long its forwards take does not depend on that."""
    settings = Settings(
        spread_temperatures(candidates, TEMPERATURES), end="vote", max_sentences=12, max_sentence_tokens=32
    )
    value = ValueModel(load_policy(DEMO, digest="demo"), _spec())
    return Case(load_policy(DEMO, digest="demo"), value, _pictures(images), PROMPT, settings)


def llava_case(images: int, candidates: int = 6, states: bool = False) -> Case:
    """Random weights that read 196 image tokens and draw sentences of 20 tokens, 5 a caption.

    `states`: V is a head on the policy's own states instead of a network of the same size.
    """
    settings = Settings(
        spread_temperatures(candidates, TEMPERATURES),
        end="vote",
        max_sentences=5,
        max_sentence_tokens=20,
        max_new_tokens=100,
    )
    policy = llava_224()
    value: ValueModel | StateValue = ValueModel(llava_224(), _spec())
    if states:
        hidden = policy.model.config.get_text_config().hidden_size
        value = StateValue(torch.zeros(hidden), torch.ones(hidden), _spec("policy_states"))
    return Case(policy, value, _pictures(images), PROMPT, settings)


def llava_224() -> Policy:
    """A LLaVA of 7 M random weights, the same each time, for images of 224 pixels; it never ends a sentence.

    Component 0 of the text's hidden states is constant, so that column 0 of the output is a bias against all that could
    end a sentence or an answer. Tokenizer and chat template are the demo's.
    """
    demo = load_policy(DEMO, digest="demo").processor
    tok = demo.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tok),
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            pad_token_id=tok.pad_token_id,
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
        ),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(images, tok, PATCH, "default", demo.chat_template, num_additional_image_tokens=1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                torch.nn.init.zeros_(weight[0])
        words, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        torch.nn.init.normal_(words)
        torch.nn.init.constant_(words[:, 0], 2.0)
        torch.nn.init.normal_(output, std=3 * output.shape[1] ** -0.5)
        output[:, 0] = torch.tensor([0.0 if _is_word(tok.decode([i])) else -50.0 for i in range(len(tok))])
    model.generation_config.eos_token_id = tok.eos_token_id
    model.generation_config.pad_token_id = tok.pad_token_id
    return Policy(model.eval().requires_grad_(False), processor, "llava-224")


def _is_word(piece: str) -> bool:
    return bool(piece.strip()) and piece.strip().isalpha()


def _spec(reads: str = "image_and_text") -> ValueSpec:
    return ValueSpec("none", train="full", layer=-1, state="sentence", reads=reads)


def _pictures(count: int) -> list[Image.Image]:
    return [draw_scene(scene) for scene in sample_scenes("search speed", count)]
