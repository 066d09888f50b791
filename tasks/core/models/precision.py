"""Number formats in training: what learns is float32, and what of an update a coarser format keeps.

A step of 1e-6 is less than half the distance between neighbouring bfloat16 numbers from 2.6e-4 on, so weights that learn in
bfloat16 mostly stay where they are; float16 overflows. Weights that learn, and adapters, are float32 here. On a CUDA device the
forward of a bfloat16 policy runs under autocast and frozen parts keep their format; elsewhere, and for a float16 policy,
everything is computed in float32, and the frozen parts return to their format afterwards, which changes none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tasks.core.models.parts import LoraTargets, learnable

HALVES = (torch.float16, torch.bfloat16)
_NAMES_OF_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
KEEPS_HALF = 0.5  # of an update: where rounding leaves less, `auto` saves float32


@dataclass
class Formats:
    """The number formats a model came with, by parameter and buffer, to return to."""

    dtypes: dict[str, torch.dtype]

    @property
    def half(self) -> bool:
        """Whether any weight came in 16 bits."""
        return any(dtype in HALVES for dtype in self.dtypes.values())


def computes_in_float32(device: torch.device) -> bool:
    """Whether training computes in float32 on a device, rather than under autocast."""
    return device.type != "cuda"


def learn_in_float32(model: Any, train: str) -> Formats:
    """Make what learns float32, in place; adapters, which come later, PEFT makes float32 itself.

    Args:
        model: as loaded.
        train: full or lora.

    Returns:
        The formats it had.
    """
    formats = Formats({name: tensor.dtype for name, tensor in _floats(model)})
    everything = formats.half and computes_in_float32(next(model.parameters()).device)
    # Autocast to bfloat16 can't mix with float16, and gradients in float16 underflow without a scaler.
    everything |= torch.float16 in formats.dtypes.values()
    chosen = {id(parameter) for parameter in learnable(model).values()} if train == "full" else set()
    for _, tensor in _floats(model):
        if everything or id(tensor) in chosen:
            tensor.data = tensor.data.float()
    return formats


def adapter_config(targets: LoraTargets, rank: int) -> Any:
    """PEFT's configuration of LoRA on the targets; alpha is twice the rank."""
    from peft import LoraConfig

    modules, parameters = list(targets.modules), list(targets.parameters)
    if parameters:
        # PEFT takes layers of these names in a model with fused experts for the experts' and drops them; by their weights
        # they stay targets of their own.
        taken = [name for name in modules if name.rpartition(".")[2] in _NAMES_OF_EXPERTS]
        modules = [name for name in modules if name not in taken]
        parameters += [f"{name}.weight" for name in taken]
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=modules,
        target_parameters=parameters or None,
    )


def add_adapters(model: Any, targets: LoraTargets, rank: int) -> None:
    """Put float32 adapters into the model, in place: they alone have gradients."""
    from peft import inject_adapter_in_model

    own = {id(parameter) for parameter in model.parameters()}
    inject_adapter_in_model(adapter_config(targets, rank), model)
    for parameter in model.parameters():
        if id(parameter) in own:
            parameter.requires_grad_(False)
        else:
            parameter.data = parameter.data.float()


def autocast(model: Any) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where a model in training has weights of 16 bits beside float32; else nothing."""
    device = next(model.parameters()).device
    if not has_half(model):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def has_half(model: Any) -> bool:
    """Whether any weight is of 16 bits."""
    return any(parameter.dtype in HALVES for parameter in model.parameters())


def to_formats(model: Any, formats: Formats) -> None:
    """Round every weight and buffer to the format it came with, in place."""
    for name, tensor in _floats(model):
        if name in formats.dtypes:
            tensor.data = tensor.data.to(formats.dtypes[name])


def to_float32(model: Any) -> None:
    """Make the whole model float32, in place; `model.config` says so too."""
    for _, tensor in _floats(model):
        tensor.data = tensor.data.float()
    model.config.dtype = torch.float32


def merged(trained: Any) -> Iterator[tuple[str, torch.nn.Parameter, torch.Tensor]]:
    """(name in the base model, weight, the weight with its adapters in float32) of every adapted weight."""
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    names = {id(parameter): _base_name(name) for name, parameter in trained.named_parameters()}
    for module in trained.modules():
        if not isinstance(module, LoraLayer):
            continue
        weight = module.get_param() if isinstance(module, ParamWrapper) else module.get_base_layer().weight
        total = weight.detach().float()
        for adapter in module.active_adapters:
            total = total + module.get_delta_weight(adapter).to(total)
        yield names[id(weight)], weight, total


def _base_name(name: str) -> str:
    """A parameter's name without what PEFT puts around and into it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _floats(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor
