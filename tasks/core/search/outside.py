"""Whole answers by decoding methods of transformers: baselines that this project doesn't implement itself."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Settings, Task, strategy
from tasks.core.search.ranking import choose_answer
from tasks.core.search.requests import Search, generate


@strategy()
def beam(task: Task) -> Search[SearchResult]:
    """Beam search, one beam for each temperature; options go to `generate` (num_beams, length_penalty ...)."""
    return _generated(task.settings, "beam", {"num_beams": len(task.settings.temperatures)})


@strategy()
def diverse_beam(task: Task) -> Search[SearchResult]:
    """Diverse beam search (arXiv 1610.02424), groups of one beam, diversity_penalty 0.5; options go to `generate`."""
    width = len(task.settings.temperatures)
    return _generated(task.settings, "diverse_beam", {"num_beams": width, "groups": width, "diversity_penalty": 0.5})


@strategy()
def contrastive(task: Task) -> Search[SearchResult]:
    """Contrastive search (arXiv 2202.06417), top_k 4, penalty_alpha 0.6; options go to `generate`."""
    return _generated(task.settings, "contrastive", {"top_k": 4, "penalty_alpha": 0.6})


def _generated(settings: Settings, method: str, defaults: dict[str, float]) -> Search[SearchResult]:
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
    return choose_answer([candidate], 0)
