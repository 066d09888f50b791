"""The value model, of one of two kinds: a network that reads image and text, or a head on the policy's own hidden states.

`ValueModel` is a vision-language backbone with one linear head. It reads the image and a text in a user turn, as VisVM does
(section 3.2), but pools the last token, or the mean of the text's, instead of flattening 2,560 padded positions into one head,
so it has no length and no shard count built in. `StateValue` is the head alone: it reads the state in which the policy ended
the sentence, so a search needs no second network and no second forward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tasks.core.models.parts import learnable_below, lora_targets
from tasks.core.models.placeholders import image_marks
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.precision import add_adapters, autocast, learn_in_float32


@dataclass(frozen=True)
class ValueSpec:
    """How V is built; saved beside its weights."""

    backbone: str  # digest of the checkpoint it stands on
    train: str  # full, lora, frozen
    layer: int
    state: str  # sentence, prefix
    lora_rank: int = 16
    reads: str = "image_and_text"  # or policy_states, of the checkpoint named `backbone`
    pooling: str = "last"  # last, mean: of which tokens' states V is; policy_states: last


class ValueModel:
    """V(image, text) with everything needed to train, save and reload it."""

    def __init__(self, policy: Policy, spec: ValueSpec) -> None:
        """Put a fresh head on `policy`'s backbone, which this model owns from now on.

        Raises:
            ValueError: for a layer that the backbone doesn't have, another pooling than last and mean, or a mean over a text
                that the chat template puts before the image, which has not seen it.
        """
        self.policy, self.spec = policy, spec
        check_layer(policy, spec.layer)
        if spec.pooling not in ("last", "mean"):
            raise ValueError(f"pooling is {spec.pooling!r}: want last or mean")
        hidden = policy.model.config.get_text_config().hidden_size
        self.head = torch.nn.Linear(hidden, 1)
        # Always the same start: xavier on a generator of its own, zero bias.
        torch.nn.init.xavier_uniform_(self.head.weight, generator=torch.Generator().manual_seed(0))
        torch.nn.init.zeros_(self.head.bias)
        self.head.to(policy.device, torch.float32)
        if spec.train == "lora":
            targets = lora_targets(policy.model, spec.layer)
            if targets.lack:
                raise ValueError(f"train is 'lora': {targets.lack}; want full or frozen")
        if spec.train != "frozen":
            learn_in_float32(policy.model, spec.train)
        policy.model.requires_grad_(False)
        if spec.train == "lora":
            torch.manual_seed(0)  # the adapters' start
            add_adapters(policy.model, targets, spec.lora_rank)
        elif spec.train == "full":
            for parameter in learnable_below(policy.model, spec.layer).values():
                parameter.requires_grad_(True)
        # What the features are read from is never sampled, so the backbone stays in evaluation mode: no dropout.
        self.tokens = 0
        # The same sentences come again every epoch, and a chat template is slow.
        self._behind_image = lru_cache(maxsize=50_000)(self._tokens_behind_image)
        if spec.pooling == "mean" and not self._behind_image("A cat."):
            raise ValueError("pooling is 'mean', but the chat template puts no text behind the image: want last")

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What learns: the head and, unless it is frozen, the backbone's part."""
        learned = {f"backbone.{n}": p for n, p in self.policy.model.named_parameters() if p.requires_grad}
        return learned | {f"head.{n}": p for n, p in self.head.named_parameters()}

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        """Values [B], float32."""
        inputs = self.policy.inputs(images, texts, answer_next=False)
        self.tokens += int(inputs["attention_mask"].sum())
        # A frozen backbone is read as the policy is; one that learns, with float32 weights among others.
        with nullcontext() if self.spec.train == "frozen" else autocast(self.policy.model):
            hidden = self.policy.hidden(inputs, self.spec.layer)
        if self.spec.pooling == "last":
            return self.head_of(hidden[:, -1])  # left padding: the last position is every row's last token
        # An empty text may leave nothing behind the image, whose last token then ends the turn.
        counts = [max(1, self._behind_image(text)) for text in texts]
        means = [row[-count:].float().mean(dim=0) for row, count in zip(hidden, counts, strict=True)]
        return self.head_of(torch.stack(means))

    def head_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Values [B], float32, of hidden states [B, D] of the spec's layer, pooled over the user turns as the spec states."""
        return self.head(hidden.float())[:, 0]

    def _tokens_behind_image(self, text: str) -> int:
        """How many tokens the template has behind the image: the text's and what ends the turn."""
        policy = self.policy
        ids = policy.tokenizer(policy.chat.rendered(text, answer_next=False), add_special_tokens=False)["input_ids"]
        marks = image_marks(policy.model.config, policy.processor)
        return next((behind for behind, id_ in enumerate(reversed(ids)) if id_ in marks), 0)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Learned tensors by name, on the CPU."""
        return {name: p.detach().cpu().contiguous() for name, p in self.parameters().items()}

    def save(self, folder: Path) -> None:
        """Write `value.json` and `value.safetensors`; the frozen part of the backbone is named by digest, not copied."""
        _save(folder, self.spec, self.tensors())


class StateValue:
    """V of the policy's hidden state at a sentence's end: standardised, one hidden layer, one number."""

    WIDTH = 128

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, spec: ValueSpec) -> None:
        """Put a fresh head on states of this mean [D] and standard deviation [D], on their device.

        A dimension that never varied in training is not scaled: there is no telling what one unit of it means.
        """
        self.spec = spec
        self.mean, self.std = mean.float(), torch.where(std < 1e-6, 1.0, std.float())
        inner, outer = torch.nn.Linear(len(mean), self.WIDTH), torch.nn.Linear(self.WIDTH, 1)
        # Always the same start, and V = 0 there.
        torch.nn.init.xavier_uniform_(inner.weight, generator=torch.Generator().manual_seed(0))
        for fixed in (inner.bias, outer.weight, outer.bias):
            torch.nn.init.zeros_(fixed)
        self.net = torch.nn.Sequential(inner, torch.nn.GELU(), outer).to(mean.device)

    @classmethod
    def of(cls, states: torch.Tensor, spec: ValueSpec, device: str | torch.device | None = None) -> StateValue:
        """A fresh head for states like these, [N, D]; on their device unless another is named."""
        mean, std = states.mean(dim=0), states.std(dim=0, correction=0)
        return cls(mean.to(device or states.device), std.to(device or states.device), spec)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What learns: all of the head."""
        return {f"head.{name}": p for name, p in self.net.named_parameters()}

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Values [N], float32, of states [N, D]."""
        return self.net((states.float() - self.mean) / self.std)[:, 0]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Learned tensors by name with the states' mean and standard deviation, on the CPU."""
        all_of_it = {"mean": self.mean, "std": self.std, **self.parameters()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in all_of_it.items()}

    def save(self, folder: Path) -> None:
        """Write `value.json` and `value.safetensors`; the policy is named by digest, not copied."""
        _save(folder, self.spec, self.tensors())


def check_layer(policy: Policy, layer: int) -> None:
    """Raise ValueError for a layer, counted from the end, that the policy's language model doesn't have."""
    layers = policy.model.config.get_text_config().num_hidden_layers
    if not -layers - 1 <= layer <= -1:
        raise ValueError(
            f"layer is {layer}: the language model has {layers} layers, so want -1 (the last) to {-layers - 1} (its input)"
        )


def _save(folder: Path, spec: ValueSpec, tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "value.safetensors")
    (folder / "value.json").write_text(json.dumps(asdict(spec), indent=1, sort_keys=True))


def read_spec(folder: Path) -> ValueSpec:
    """The spec that `save` wrote: which kind it is (`reads`), and which checkpoint it stands on (`backbone`)."""
    return ValueSpec(**json.loads((folder / "value.json").read_text()))


def load_value(folder: Path, backbone: Path, **options: Any) -> ValueModel:
    """Load a `ValueModel` that `save` wrote onto its backbone; options as for `load_policy`.

    Raises:
        ValueError: if it is of the other kind, or tensors are missing or left over.
    """
    spec = _spec_of(folder, "image_and_text")
    model = ValueModel(load_policy(backbone, digest=spec.backbone, **options), spec)
    _fill(folder, model.parameters(), load_file(folder / "value.safetensors"))
    model.policy.model.requires_grad_(False)
    return model


def load_state_value(folder: Path, device: str | torch.device) -> StateValue:
    """Load a `StateValue` that `save` wrote.

    Raises:
        ValueError: if it is of the other kind, or tensors are missing or left over.
    """
    spec = _spec_of(folder, "policy_states")
    saved = {name: tensor.to(device) for name, tensor in load_file(folder / "value.safetensors").items()}
    if not {"mean", "std"} <= saved.keys():
        raise ValueError(f"{folder}: no mean and std of the states among its {len(saved)} tensors; train it anew")
    head = StateValue(saved.pop("mean"), saved.pop("std"), spec)
    _fill(folder, head.parameters(), saved)
    head.net.requires_grad_(False)
    return head


def _spec_of(folder: Path, reads: str) -> ValueSpec:
    spec = read_spec(folder)
    if spec.reads != reads:
        loader = {"image_and_text": "load_value", "policy_states": "load_state_value"}.get(spec.reads, "nothing here")
        raise ValueError(f"{folder}: a value model that reads {spec.reads}, wanted {reads}; {loader} loads it")
    return spec


def _fill(folder: Path, parameters: dict[str, torch.nn.Parameter], saved: dict[str, torch.Tensor]) -> None:
    if saved.keys() != parameters.keys():
        odd = sorted(saved.keys() ^ parameters.keys())[:3]
        raise ValueError(f"{folder}: {len(saved)} tensors for {len(parameters)} parameters, first differences {odd}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
