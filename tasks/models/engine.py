"""The engine as every stage that decodes sets it up: a scheduler over a loaded policy, and the jobs of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.core.search.contract import SearchResult, StopReason
from tasks.core.search.requests import ANSWER, Search, propose
from tasks.stage.runtime import current_runtime

if TYPE_CHECKING:
    import PIL.Image

    from storage.schema import Sample
    from tasks.core.engine.scheduler import Job, SearchScheduler
    from tasks.core.models.policy import Policy
    from tasks.core.models.sentence_scores import Scores
    from tasks.core.seeds import Part


def open_engine(
    policy: Policy, *, top_p: float, scores: Scores | None = None, state_layer: int | None = None
) -> SearchScheduler:
    """A scheduler over the policy, with the runtime's batch size and token budget.

    `top_p`: nucleus mass that draws keep; `state_layer`: the layer whose hidden states a value model reads.
    """
    from tasks.core.engine.fallback import open_decoder
    from tasks.core.engine.scheduler import SearchScheduler

    runtime = current_runtime()
    decoder = open_decoder(policy, kv_token_budget=runtime.token_budget or None, state_layer=state_layer)
    return SearchScheduler(decoder, in_flight=runtime.batch_size, top_p=top_p, scores=scores)


def jobs_of(
    samples: Sequence[Sample],
    picture: Callable[[Sample], PIL.Image.Image],
    search: Callable[[Sample], Search[SearchResult]],
    *,
    seed: tuple[Part, ...],
    draws: Callable[[Sample], Sequence[tuple[Part, ...]]] | None = None,
) -> Iterator[Job]:
    """A job for each sample, by its index; `seed` is followed by the sample's id, `draws` are as in `Job`."""
    from tasks.core.engine.scheduler import Job

    for index, sample in enumerate(samples):
        yield Job(
            index,
            image=lambda sample=sample: picture(sample),  # type: ignore[misc]
            prompt=sample.prompt,
            search=search(sample),
            seed=(*seed, sample.sample_id),
            draws=draws and draws(sample),
        )


def whole_answers(temperatures: Sequence[float], max_tokens: int) -> Search[SearchResult]:
    """Not a search: one whole answer at each temperature, in the trace; none is chosen."""
    result = SearchResult()
    answers = yield from propose(None, temperatures, max_tokens=max_tokens, until=ANSWER, keep=False)
    result.record(0, answers, {}, None)
    return result.finish(StopReason.END)
