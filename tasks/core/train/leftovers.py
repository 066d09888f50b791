"""A model is given back as it came but for its weights: mode, hooks, forward and settings that training changes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.core.models.policy import Policy


def learning_mode(model: Any) -> None:
    """Evaluation mode, except that layers which recompute their activations do so (they ask for training mode)."""
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True  # of itself alone: what is inside stays without dropout


@contextmanager
def as_it_was(policy: Policy) -> Iterator[None]:
    """Take back what a trainer leaves beside the weights: a forward of its own, hooks, and changed settings."""
    model, own = policy.model, policy.model.__dict__
    forward = own.get("forward")
    settings = [(each, _copied(each)) for each in (*_configs(model.config), model.generation_config)]
    side = policy.tokenizer.padding_side
    try:
        with warnings.catch_warnings():
            # PEFT uses the old name of transformers.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        own.pop("forward", None)
        if forward is not None:
            own["forward"] = forward
        if model.is_activation_checkpointing:
            model.activation_checkpointing_disable()
            model.disable_input_require_grads()
        for each, before in settings:
            vars(each).clear()
            vars(each).update(before)
        policy.tokenizer.padding_side = side


def _configs(config: Any) -> list[Any]:
    """A configuration and those within it, which the parts of the model share."""
    from transformers import PretrainedConfig

    inner = [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
    return [config, *(each for value in inner for each in _configs(value))]


def _copied(settings: Any) -> dict[str, Any]:
    """Values of a configuration; those that are configurations themselves as they are."""
    from transformers import PretrainedConfig

    return {
        name: value if isinstance(value, PretrainedConfig) else copy.deepcopy(value)
        for name, value in vars(settings).items()
    }
