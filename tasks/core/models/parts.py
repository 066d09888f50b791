"""Which part of a vision-language model a module is: the language model, its layers, the towers, and what adapters go on.

Decided by modules, never by the names of parameters, which differ between architectures. A tower is what reads pixels or
sound: what `get_encoder` returns for a modality, and every whole network beside the language model or inside it that does not
read text. What stands between a tower and the language model learns with the language model where it is a module of its own
(`multi_modal_projector`, `connector`, `image_newline`: LLaVA trains its projector) and stays frozen where it is part of the
tower (`visual.merger` of the Qwen models).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import PreTrainedModel  # noqa: E402
from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402

LEAST_COVERED = (
    0.9  # of the linear weights: LoRA's published results have adapters on every one; a tenth is for routers
)
_MODALITIES = ("image", "video", "audio")
_LINEAR = (nn.Linear, Conv1D)  # Conv1D: GPT-2's linear layer
_NO_MATRICES = (nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class LoraTargets:
    """What adapters go on, and how much of the language model's linear weights that is; an expert's matrix counts as one."""

    modules: tuple[str, ...]  # names of linear layers
    parameters: tuple[
        str, ...
    ]  # names of the experts' weights that a layer holds in one tensor, [experts, rows, columns]
    covered: int
    all: int
    uncovered: Mapping[str, int]  # kind -> matrices of it

    @property
    def share(self) -> float:
        """Of the matrices, those with an adapter; 0 for a language model without any."""
        return self.covered / self.all if self.all else 0.0

    @property
    def lack(self) -> str:
        """What to say of adapters that reach too little of the language model; empty: they reach enough."""
        if self.share >= LEAST_COVERED:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.uncovered.items()) or "no linear layer at all"
        return f"LoRA would adapt {self.covered} of {self.all} linear weights of the language model; without: {kinds}"


def language_model(model: Any) -> nn.Module:
    """The text layers with their embeddings, without the language head."""
    decoder: nn.Module = model.get_decoder()
    return decoder


def text_layers(model: Any) -> nn.ModuleList:
    """The language model's layers, first to last.

    Raises:
        ValueError: it holds no list of as many layers as its configuration says.
    """
    count = model.config.get_text_config().num_hidden_layers
    decoder = language_model(model)
    for module in (getattr(decoder, "layers", None), *decoder.modules()):
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(model).__name__}: no list of {count} layers in its language model")


def recompute_activations(model: Any) -> None:
    """Keep no layer's activations for the backward pass; only the layers are in training mode, so there is no dropout."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True


def towers(model: Any) -> dict[str, nn.Module]:
    """Name -> module of the vision, video and audio towers."""
    encoders = {id(model.get_encoder(modality)) for modality in _MODALITIES}
    decoder = language_model(model)
    return dict(_towers_under(model, "", decoder, encoders, inside=model is decoder))


def _towers_under(
    module: nn.Module, prefix: str, decoder: nn.Module, encoders: set[int], *, inside: bool
) -> Iterator[tuple[str, nn.Module]]:
    """Towers below `module`; `inside`: it is the language model or a part of it."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if inside:
            if id(child) in encoders or (isinstance(child, PreTrainedModel) and not _reads_text(child)):
                yield path, child
            else:
                yield from _towers_under(child, f"{path}.", decoder, encoders, inside=True)
        elif any(part is decoder for part in child.modules()):
            yield from _towers_under(child, f"{path}.", decoder, encoders, inside=child is decoder)
        elif id(child) in encoders or isinstance(child, PreTrainedModel):
            yield path, child
        else:  # a projector, or a wrapper around a tower
            yield from ((f"{path}.{deeper}", part) for deeper, part in child.named_modules() if id(part) in encoders)


def _reads_text(network: PreTrainedModel) -> bool:
    modalities: Any = network.input_modalities
    return "text" in ([modalities] if isinstance(modalities, str) else modalities)


def learnable(model: Any) -> dict[str, nn.Parameter]:
    """Name -> parameter that learns when all weights do: those of no tower."""
    frozen = {id(parameter) for tower in towers(model).values() for parameter in tower.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in frozen}


def learnable_below(model: Any, layer: int) -> dict[str, nn.Parameter]:
    """Those of `learnable` on the way to a layer, counted from the end: not the language head, nor the layers behind."""
    behind = [model.get_output_embeddings(), *_behind(model, layer)]
    left_out = {id(parameter) for part in behind if part is not None for parameter in part.parameters()}
    left_out.discard(id(model.get_input_embeddings().weight))  # the head may be tied to it
    return {name: parameter for name, parameter in learnable(model).items() if id(parameter) not in left_out}


def _behind(model: Any, layer: int) -> list[nn.Module]:
    return list(text_layers(model)[len(text_layers(model)) + 1 + layer :]) if layer < -1 else []


def lora_targets(model: Any, layer: int = -1) -> LoraTargets:
    """Every linear layer of the language model, the experts that share a tensor too, but not the language head.

    `layer`: counted from the end; what is behind it has no effect there, and is neither a target nor counted.
    """
    decoder, head = language_model(model), model.get_output_embeddings()
    left_out = {id(part) for tower in towers(model).values() for part in tower.modules()} | {id(head)}
    left_out |= {id(part) for behind in _behind(model, layer) for part in behind.modules()}
    inside = {id(part) for part in decoder.modules()} - left_out
    modules, parameters, covered, uncovered = list[str](), list[str](), 0, Counter[str]()
    for name, module in model.named_modules():
        if id(module) not in inside:
            continue
        if isinstance(module, _LINEAR):
            modules.append(name)
            covered += 1
            continue
        if isinstance(module, _NO_MATRICES):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if "bias" in own or min(parameter.shape[-2:], default=1) == 1:
                continue
            if parameter.ndim == 3:
                parameters.append(f"{name}.{own}")
                covered += len(parameter)
            elif parameter.ndim == 2:
                uncovered[f"{type(module).__name__}.{own}"] += 1
    return LoraTargets(tuple(modules), tuple(parameters), covered, covered + uncovered.total(), dict(uncovered))
