"""Fields of a checkpoint's generation config that the engine can't honour. No torch here: `plan` reads the file by it."""

from __future__ import annotations

from typing import Any

_REFUSED: dict[str, tuple[Any, ...]] = {
    "encoder_repetition_penalty": (1.0,), "encoder_no_repeat_ngram_size": (0,), "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (), "guidance_scale": (1.0,), "watermarking_config": (), "stop_strings": (),
    "force_words_ids": (), "constraints": (), "dola_layers": (), "typical_p": (1.0,), "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,), "top_h": (), "token_healing": (False,),
}  # fmt: skip
"""Fields that the engine can't honour, with the values that do nothing (None does nothing in all of them)."""


def check_generation(config: Any) -> None:
    """Refuse what a generation config (an object, or the file's mapping) sets and the engine can't honour.

    Raises:
        ValueError: in a line, which fields with which values.
    """
    values = config if isinstance(config, dict) else vars(config)
    odd = {name: values.get(name) for name, idle in _REFUSED.items() if values.get(name) not in (None, *idle)}
    if odd:
        named = ", ".join(f"{name} {value!r}" for name, value in odd.items())
        raise ValueError(f"its generation_config.json sets {named}, which the engine doesn't apply; set to null there")
