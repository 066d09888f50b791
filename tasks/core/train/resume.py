"""Resume points of a training loop of our own: weights, optimizer and figures in one safetensors file, replaced whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch


class Progress(NamedTuple):
    """All that training needs to go on."""

    tensors: dict[str, torch.Tensor]
    history: list[dict[str, float]]  # one a finished iteration

    @classmethod
    def of(
        cls,
        learned: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, float]],
    ) -> Progress:
        """What there is now, on the host."""
        tensors = {f"weight/{name}": weight.detach() for name, weight in learned.items()}
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{key}": torch.as_tensor(value) for key, value in slots.items()}
        return cls({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, history)

    @torch.no_grad()
    def into(self, learned: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Put it back."""
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in self.tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "weight":
                learned[rest].copy_(tensor)
            else:
                index, _, key = rest.partition("/")
                slots.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def keep_progress(work: Path, progress: Progress) -> None:
    """Write the new file completely before the old one goes."""
    from safetensors.torch import save_file

    work.mkdir(parents=True, exist_ok=True)
    old = list(work.glob("iteration-*.safetensors"))
    path = work / f"iteration-{len(progress.history):04d}.safetensors"
    save_file(progress.tensors, path.with_suffix(".part"), metadata={"history": json.dumps(progress.history)})
    path.with_suffix(".part").rename(path)
    for file in old:
        file.unlink()


def last_progress(work: Path) -> Progress | None:
    """The newest one; None: nothing was finished."""
    from safetensors import safe_open

    files = sorted(work.glob("iteration-*.safetensors"))
    if not files:
        return None
    with safe_open(files[-1], framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return Progress(tensors, json.loads(file.metadata()["history"]))
