"""Whole answers by decoding methods of transformers: baselines that this project doesn't implement itself."""

from __future__ import annotations

from tasks.core.search.contract import Ask, Found, Settings, Task, generate, strategy
from tasks.core.search.ranking import answered


@strategy()
def beam(task: Task) -> Ask[Found]:
    """Beam search with as many beams as there are temperatures; options go to `generate` (num_beams, length_penalty ...)."""
    return _generated(task.settings, "beam", {"num_beams": len(task.settings.temperatures)})


@strategy()
def diverse_beam(task: Task) -> Ask[Found]:
    """Diverse beam search (arXiv 1610.02424), a group a beam, diversity_penalty 0.5; options go to `generate`."""
    width = len(task.settings.temperatures)
    return _generated(task.settings, "diverse_beam", {"num_beams": width, "groups": width, "diversity_penalty": 0.5})


@strategy()
def contrastive(task: Task) -> Ask[Found]:
    """Contrastive search (arXiv 2202.06417), top_k 4, penalty_alpha 0.6; options go to `generate`."""
    return _generated(task.settings, "contrastive", {"top_k": 4, "penalty_alpha": 0.6})


def _generated(settings: Settings, method: str, defaults: dict[str, float]) -> Ask[Found]:
    """One request. Stops as the policy does: `end`, or `length` at max_new_tokens.

    Raises:
        ValueError: for an option that is no number or truth value.
    """
    options = dict(defaults)
    for name, given in settings.options.items():
        if isinstance(given, str):
            raise ValueError(f"option {name} of {method} is {given!r}: want a number, true or false")
        options[name] = given
    candidate = yield from generate(method, options, max_tokens=settings.max_new_tokens)
    return answered([candidate], 0)
