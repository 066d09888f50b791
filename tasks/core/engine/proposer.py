"""The decoder as a search's callables: candidates for many captions in one batch, each slot going on from what it kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from tasks.core.engine.decoder import Decoder, Draw, Live
from tasks.core.search.contract import Candidate
from tasks.core.seeds import Part


def spread_temperatures(candidates: int, temperatures: Sequence[float]) -> list[float]:
    """One temperature a candidate: greedy (0) once, the others dealt out evenly, first to last.

    VisVM samples greedy and T .1 .3 .5 .7 .9; with fewer candidates than temperatures these are picked evenly over the range.
    """
    others = candidates - 1
    if others <= 0:
        return [0.0]
    if others < len(temperatures):
        last = len(temperatures) - 1
        return [0.0] + [temperatures[round((i + 1) * last / others)] for i in range(others)]
    return [0.0] + [temperatures[i % len(temperatures)] for i in range(others)]


class Proposer:
    """Proposals for a batch of images; slot i is image i. `seeds[i]` names slot i in every draw."""

    def __init__(
        self,
        decoder: Decoder,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[tuple[Part, ...]],
        *,
        temperatures: Sequence[float],
        top_p: float,
    ) -> None:
        """Nothing is encoded before the first call."""
        self.decoder, self.images, self.prompts, self.seeds = decoder, images, prompts, seeds
        self.temperatures, self.top_p = temperatures, top_p
        self.step = 0
        self.live: Live | None = None

    def sentences(self, kept: Mapping[int, Candidate | None], *, max_new_tokens: int) -> dict[int, list[Candidate]]:
        """Next sentences of the slots in `kept`, each going on from the candidate it kept (None: from the prompt)."""
        slots = list(kept)
        if self.live is None:
            live, starts = self._prefill(slots), list(range(len(slots)))
        else:
            chosen = [kept[slot] for slot in slots]
            starts = [candidate.handle for candidate in chosen if candidate is not None]
            if len(starts) != len(slots):
                raise ValueError("a slot without a kept candidate after the first step: want one for every slot")
            live = self.live
        proposals, self.live = self._extend(live, starts, slots, max_new_tokens, sentence=True)
        self.step += 1
        return proposals

    def answers(self, slots: Sequence[int], *, max_new_tokens: int) -> dict[int, list[Candidate]]:
        """Whole answers of the slots, one a temperature."""
        return self._extend(self._prefill(slots), range(len(slots)), slots, max_new_tokens, sentence=False)[0]

    def _prefill(self, slots: Sequence[int]) -> Live:
        return self.decoder.prefill([self.images[s] for s in slots], [self.prompts[s] for s in slots])

    def _extend(
        self, live: Live, starts: Sequence[int], slots: Sequence[int], limit: int, *, sentence: bool
    ) -> tuple[dict[int, list[Candidate]], Live]:
        """Fork every start over the temperatures and let all rows speak."""
        width = len(self.temperatures)
        forked = self.decoder.fork(live, [start for start in starts for _ in range(width)])
        draws = [
            Draw(temperature, self.top_p, (*self.seeds[slot], self.step, index))
            for slot in slots
            for index, temperature in enumerate(self.temperatures)
        ]
        said, live = self.decoder.extend(forked, draws, max_new_tokens=limit, sentence=sentence)
        proposals: dict[int, list[Candidate]] = {}
        for row, one in enumerate(said):
            candidate = Candidate(one.text, self.temperatures[row % width], one.ended, one.drawn, handle=row)
            proposals.setdefault(slots[row // width], []).append(candidate)
        return proposals, live
