"""The value model: a vision-language backbone, its last token's hidden state, one linear head.

V reads the image and a text in a user turn, as VisVM does (section 3.2), but pools the last token instead of flattening 2,560
padded positions into one head, so it has no length and no shard count built in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tasks.core.models.policy import Policy, load_policy

LINEAR_LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class ValueSpec:
    """How V is built; saved beside its weights."""

    backbone: str  # digest of the checkpoint it stands on
    train: str  # full, lora, frozen
    layer: int
    state: str  # sentence, prefix
    lora_rank: int = 16


class ValueModel:
    """V(image, text) with everything needed to train, save and reload it."""

    def __init__(self, policy: Policy, spec: ValueSpec) -> None:
        """Put a fresh head on `policy`'s backbone, which this model owns from now on."""
        self.policy, self.spec = policy, spec
        hidden = policy.model.config.get_text_config().hidden_size
        self.head = torch.nn.Linear(hidden, 1)
        # Always the same start: xavier on a generator of its own, zero bias.
        torch.nn.init.xavier_uniform_(self.head.weight, generator=torch.Generator().manual_seed(0))
        torch.nn.init.zeros_(self.head.bias)
        self.head.to(policy.device, torch.float32)
        if spec.train == "lora":
            from peft import LoraConfig, inject_adapter_in_model

            torch.manual_seed(0)  # the adapters' start
            inject_adapter_in_model(
                LoraConfig(r=spec.lora_rank, lora_alpha=2 * spec.lora_rank, target_modules=LINEAR_LAYERS), policy.model
            )
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(_learns(name, spec.train))
        # What the features are read from is never sampled, so the backbone stays in evaluation mode: no dropout.
        self.tokens = 0

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What learns: the head and, unless it is frozen, the backbone's part."""
        learned = {f"backbone.{n}": p for n, p in self.policy.model.named_parameters() if p.requires_grad}
        return learned | {f"head.{n}": p for n, p in self.head.named_parameters()}

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        """Values [B], float32."""
        inputs = self.policy.inputs(images, texts, answer_next=False)
        self.tokens += int(inputs["attention_mask"].sum())
        positions = (inputs["attention_mask"].long().cumsum(dim=1) - 1).clamp(min=0)
        all_layers = self.spec.layer != -1
        out = self.policy.model.model(
            **inputs, position_ids=positions, use_cache=False, output_hidden_states=all_layers
        )
        hidden = out.hidden_states[self.spec.layer] if all_layers else out.last_hidden_state
        # Left padding: the last position is every row's last token.
        return self.head(hidden[:, -1].float())[:, 0]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Learned tensors by name, on the CPU."""
        return {name: p.detach().cpu().contiguous() for name, p in self.parameters().items()}

    def save(self, folder: Path) -> None:
        """Write `value.json` and `value.safetensors`; the frozen part of the backbone is named by digest, not copied."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), folder / "value.safetensors")
        (folder / "value.json").write_text(json.dumps(asdict(self.spec), indent=1, sort_keys=True))


def read_spec(folder: Path) -> ValueSpec:
    """The spec that `save` wrote; its `backbone` says which checkpoint to load first."""
    return ValueSpec(**json.loads((folder / "value.json").read_text()))


def load_value(folder: Path, backbone: Path, **options: Any) -> ValueModel:
    """Load what `save` wrote onto its backbone; options as for `load_policy`.

    Raises:
        ValueError: if tensors are missing or left over.
    """
    spec = read_spec(folder)
    model = ValueModel(load_policy(backbone, digest=spec.backbone, **options), spec)
    saved, parameters = load_file(folder / "value.safetensors"), model.parameters()
    if saved.keys() != parameters.keys():
        odd = sorted(saved.keys() ^ parameters.keys())[:3]
        raise ValueError(f"{folder}: {len(saved)} tensors for {len(parameters)} parameters, first differences {odd}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    model.policy.model.requires_grad_(False)
    return model


def _learns(name: str, train: str) -> bool:
    if train == "frozen":
        return False
    if train == "lora":
        return "lora_" in name
    # Full: all but the vision tower, as LLaVA trains; the language head is not on the path to V.
    return "vision" not in name and not name.startswith("lm_head")
