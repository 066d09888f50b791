"""Answers drawn by the engine for a policy in training, as the stages draw them."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.core.engine.fallback import open_decoder
from tasks.core.engine.scheduler import SearchScheduler
from tasks.core.models.policy import Policy
from tasks.core.train.drawing import Drawing, Drawn, draw_answers
from tasks.core.train.grpo import Draw, Question, Request, Sampling


def engine_draw(policy: Policy, questions: Sequence[Question], sampling: Sampling, seed: int) -> Draw:
    def drawing(request: Request, step: int) -> Drawing:
        question = questions[request.question]
        return Drawing(
            question.image,
            question.prompt,
            sampling.temperature,
            sampling.max_new_tokens,
            seed=("test", seed, step, request.question),
            draws=[(request.repetition, number) for number in range(sampling.generations)],
        )

    def draw(requests: Sequence[Request], step: int) -> list[list[Drawn]]:
        scheduler = SearchScheduler(open_decoder(policy), in_flight=4, top_p=1.0)
        return draw_answers(scheduler, [drawing(request, step) for request in requests])

    return draw
