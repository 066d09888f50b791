"""What training holds: weights in two precisions, gradients, Adam's moments, checkpointed activations, and the loss's logits.

What learns is float32 whatever the policy's precision: 4 bytes of weights, 4 of gradients and 8 of Adam's moments a parameter.
Everything else stays in the policy's precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.core.memory.facts import Architecture, ImageCost, Phase
from tasks.core.memory.forward import PROMPT_TOKENS, language_bytes, vision_bytes

LOSS_BYTES = 12  # a position and a word of the vocabulary: float32 logits, their log-softmax, and its gradient


@dataclass(frozen=True)
class Training:
    """What learns, and how much is read in one forward."""

    train: str  # full, lora or frozen
    rank: int  # of the adapters
    rows: int  # sequences in one forward with gradients
    answer: int  # tokens behind the prompt, at most
    width: int  # bytes of a number in the policy's precision
    layer: int = -1  # the last hidden layer that is computed, from the end
    logits: bool = True  # whether the answers' logits are computed; V has none
    target: bool = False  # whether a float32 copy of what learns follows it (Polyak)
    checkpointed: bool = True
    foreach: bool = False  # whether the optimizer updates all weights at once, with temporaries
    learned: int | None = None  # so many of the answer's tokens, the last ones, have a loss; None: all


def adapter_parameters(arch: Architecture, rank: int) -> int:
    """Of LoRA on the language model's linear layers."""
    return rank * arch.language.lora_width


def truncated(arch: Architecture, layer: int) -> Architecture:
    """The model without the language layers above a hidden layer and without the head: what V stands on."""
    whole, language = arch.language, arch.language.truncated(layer)
    share = language.layers / whole.layers
    parameters = replace(arch.parameters, language=round(arch.parameters.language * share), head=0)
    return replace(arch, parameters=parameters, language=replace(language, lora_width=round(whole.lora_width * share)))


def weight_terms(arch: Architecture, training: Training) -> dict[str, float]:
    """Weights, gradients and the optimizer's moments."""
    parameters, width = arch.parameters, training.width
    learning = {"full": parameters.learning, "lora": adapter_parameters(arch, training.rank), "frozen": 0}
    count = learning[training.train]
    frozen = parameters.vision if training.train == "full" else parameters.total
    terms: dict[str, float] = {
        "frozen weights": frozen * width,
        "learning weights": 4 * count,
        "gradients": 4 * count,
        "Adam's moments": 8 * count,
    }
    if training.target:
        terms["target network"] = 4 * count
    return terms


def training_phases(arch: Architecture, cost: ImageCost, held: dict[str, float], training: Training) -> list[Phase]:
    """One forward and backward over `rows` sequences, beside what is held.

    `held` holds neither this model's weights nor its gradients. V's backbone comes as `truncated` gives it.
    """
    language, width = arch.language, training.width
    tokens = training.rows * (cost.tokens + PROMPT_TOKENS + training.answer)
    # With float32 weights that learn, autocast multiplies in bfloat16 but adds to a float32 residual stream.
    residual = 4 if training.train == "full" else width
    weights = {**held, **weight_terms(arch, training)}
    features = training.rows * cost.tokens * language.hidden * residual
    pixels = training.rows * cost.pixels * (4 + width)
    vision = vision_bytes(arch.vision, training.rows * cost.patches, width)
    phases = [Phase("the images are encoded", {**weights, "pixels": pixels, "vision activations": vision + features})]
    terms = {**weights, "pixels": pixels, "image features": features}
    if training.train == "frozen":
        terms["language activations"] = language_bytes(arch, tokens, width)
        return [*phases, Phase("the language model reads", terms)]
    if training.train == "full" and width < 4:
        terms["autocast's copies"] = arch.parameters.learning * width
    each = layer_bytes(arch, tokens, training, residual)
    if training.checkpointed:
        terms["checkpointed activations"] = tokens * language.hidden * residual * language.layers
        terms["activations of a layer"] = each.saved + each.backward
    else:
        terms["activations of all layers"] = each.saved * language.layers + each.backward
    if training.logits:
        positions = training.rows * (training.answer if training.learned is None else training.learned)
        terms["logits"] = positions * language.vocabulary * (width + LOSS_BYTES)
    phases.append(Phase("backward", terms))
    if training.foreach:
        phases.append(Phase("the update", {**weights, "temporaries of an update": weights["learning weights"]}))
    return phases


@dataclass(frozen=True)
class LayerBytes:
    """Of one layer with gradients."""

    saved: float  # for the backward
    backward: float  # gradients of its inner tensors


def layer_bytes(arch: Architecture, tokens: float, training: Training, residual: int) -> LayerBytes:
    """What one layer saves for its backward: inputs and outputs of both norms (with weights that learn what is between them,
    too), attention's operands and result, with keys and values repeated for every head, and the gated network's four inner
    tensors. The backward adds the gradients of three of these and of the residual stream.
    """
    language, width = arch.language, training.width
    heads = language.heads * language.head_dim
    hidden = 6 if training.train == "full" else 4
    saved = tokens * (hidden * language.hidden * residual + (4 * heads + 4 * language.intermediate) * width)
    backward = tokens * (3 * language.hidden * residual + 3 * language.intermediate * width)
    return LayerBytes(saved, backward)
