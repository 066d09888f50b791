"""The model card of a trained policy."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.configs.train import TrainingSettings
from tasks.models.handles import PolicyHandle

_SETTINGS = ("method", "train", "lr", "epochs", "batch_size", "warmup_share", "lora_rank")


def model_card(config: TrainingSettings, policy: PolicyHandle, dtype: str, figures: Mapping[str, float]) -> str:
    """What a trained checkpoint is, in Markdown: its base, how it was trained, and what of the update its format keeps."""
    settings = {name: value for name, value in config.model_dump().items() if name in _SETTINGS}
    if config.train == "full":
        settings.pop("lora_rank")
    rows = {
        "base": f"`{policy.checkpoint.digest}`, loaded in {policy.dtype}",
        **{f"finetune.{name}": f"{value:g}" if isinstance(value, float) else value for name, value in settings.items()},
        "relative change of the weights": f"{figures['relative_change']:.3g}",
        f"of this change, {policy.dtype} keeps": f"{figures['surviving_share']:.1%}",
        "saved in": dtype,
    }
    if "steps" in figures:
        rows["steps"] = int(figures["steps"])
    if "lora_all" in figures:
        rows["linear weights with an adapter"] = f"{figures['lora_covered']:g} of {figures['lora_all']:g}"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    advice = (
        "" if dtype == policy.dtype else f"\nLoad it in {dtype}: in {policy.dtype} most of what it learned is lost.\n"
    )
    return f"---\nlibrary_name: transformers\n---\n# A policy trained by visloop\n\n| | |\n|---|---|\n{table}\n{advice}"
