"""What forwards without gradients hold: the vision tower's and the language model's activations, caches, logits, and the
scorer's. Every function gives bytes; `width` is the bytes of a number in the policy's precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.core.memory.facts import Architecture, ImageCost, Phase, Vision

PROMPT_TOKENS = 64  # of a prompt's text with its template
SLABS = 8  # parts that a cache is moved in, as in tasks/core/engine/layers.py
PREFIX_COPIES = 1 + 1 / SLABS  # of a batch of prompts while the model's cache becomes a prefix a row
BUFFERS = 1 + 1 / SLABS  # the new one while a batch is rebuilt, and what is left of the old one
DRAW_BYTES = (
    36  # a row and a word of the vocabulary: float32 logits twice, and float64 ones scaled, as probabilities, summed
)


@dataclass(frozen=True)
class Decoding:
    """How much is decoded at once."""

    images: int  # in flight
    rows: int  # continuations of an image
    before: int  # tokens of an answer that rows continue from, at most
    new: int  # tokens of a continuation, at most
    kept: int = 0  # tokens of finished continuations that an image's search keeps, over all its rows
    token_budget: int = 0  # rows times columns of the buffer; 0: as many as there are


@dataclass(frozen=True)
class Reading:
    """Images with their sequences, read in one forward."""

    images: int
    tokens: int  # of a sequence
    cached: bool = True  # whether their keys and values are kept


def vision_bytes(vision: Vision, patches: float, width: int) -> float:
    """Activations of a tower that reads `patches` patches without gradients.

    A layer holds its input, and the larger of its attention (norm, three projections, their result, its projection) and its
    network (norm, two inner tensors, the result); some models keep all layers' states until they pick the features.
    """
    layer = max(7 * vision.hidden, 3 * vision.hidden + 2 * vision.intermediate)
    return patches * width * (layer + (vision.layers + 1) * vision.hidden * vision.keeps_layers)


def language_bytes(arch: Architecture, tokens: float, width: int) -> float:
    """Activations of one layer that reads `tokens` tokens without gradients, with the sequence's embeddings.

    Under a mask keys and values are repeated for every head.
    """
    language = arch.language
    heads = language.heads * language.head_dim
    attention = 2 * language.hidden + 6 * heads
    network = 3 * language.hidden + 3 * language.intermediate
    return tokens * width * (language.hidden + max(attention, network))


def reading_phases(
    arch: Architecture, cost: ImageCost, held: dict[str, float], reading: Reading, width: int
) -> list[Phase]:
    """Reading images with their sequences beside what is held: the towers first, then the text."""
    images, tokens = reading.images, reading.tokens
    features = images * cost.tokens * arch.language.hidden * width
    pixels = images * cost.pixels * (4 + width)
    cache = images * (tokens * arch.language.kv_bytes(width) + arch.language.cross_bytes(cost.cross_tokens, width))
    vision = vision_bytes(arch.vision, images * cost.patches, width)
    phases = [
        Phase("the images are encoded", {**held, "pixels": pixels, "vision activations": vision + features}),
        Phase("the prompts are read", {
            **held,
            "pixels": pixels,
            "language activations": language_bytes(arch, images * tokens, width) + features,
            "attention mask": images * tokens**2,
            "prefixes": cache if reading.cached else 0.0,
        }),
    ]  # fmt: skip
    if reading.cached:
        phases.append(Phase("prefixes are copied", {**held, "prefixes": PREFIX_COPIES * cache}))
    return phases


def decoding_phases(
    arch: Architecture, cost: ImageCost, held: dict[str, float], decoding: Decoding, width: int
) -> list[Phase]:
    """Reading the prompts of all images in flight, decoding, and admitting new images while others are decoded."""
    language, count = arch.language, decoding.images
    prompt = cost.tokens + PROMPT_TOKENS
    per_token = language.kv_bytes(width)
    cross = language.cross_bytes(cost.cross_tokens, width)
    columns = prompt + decoding.before + decoding.rows * decoding.new
    buffer = count * columns
    if decoding.token_budget:
        buffer = max(min(buffer, decoding.token_budget), columns)
    prefixes = count * ((prompt + decoding.before + decoding.kept) * per_token + cross)
    rows = count * decoding.rows
    decode = {
        **held,
        "prefixes": prefixes,
        "decode buffer": BUFFERS * buffer * per_token + count * cross,
        "logits": rows * language.vocabulary * (width + DRAW_BYTES),
        "language activations": language_bytes(arch, rows, width),
    }
    phases = reading_phases(arch, cost, held, Reading(count, prompt), width)
    phases.append(Phase("answers are decoded", decode))
    joining = math.ceil(count / 4)
    if joining < count:
        beside = {**held, "prefixes of others": prefixes, "decode buffer": buffer * per_token}
        phases += [
            Phase(f"{phase.name} while others are decoded", phase.terms)
            for phase in reading_phases(arch, cost, beside, Reading(joining, prompt), width)
        ]
    return phases


@dataclass(frozen=True)
class ScorerSizes:
    """An image-text model that scores sentences, in float32."""

    parameters: int
    vision: Vision
    patches: int
    pixels: int
    text: Vision  # the text tower has the same layers
    context: int  # tokens of a text
    width: int = 4

    @property
    def weights(self) -> float:
        """Bytes of its weights."""
        return self.parameters * self.width

    def phases(self, held: dict[str, float], *, images: int = 64, texts: int = 256) -> list[Phase]:
        """Embedding images, and sentences, in its batches."""
        vision = vision_bytes(self.vision, images * self.patches, self.width)
        text = vision_bytes(self.text, texts * self.context, self.width)
        return [
            Phase("images are embedded", {**held, "pixels": images * self.pixels * 4.0, "vision activations": vision}),
            Phase("sentences are embedded", {**held, "text activations": text}),
        ]
