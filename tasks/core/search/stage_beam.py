"""Stage-level beam search judged by the policy itself (LLaVA-CoT, arXiv 2411.10440, first version).

The released code also asks, text only, whether each reasoning is correct before it compares two; that is omitted here.
"""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, StopReason, Task, strategy
from tasks.core.search.judge import pairings, tournament
from tasks.core.search.options import own_options
from tasks.core.search.ranking import how_it_ended, non_empty
from tasks.core.search.requests import Candidate, Search, propose
from tasks.core.search.stages import STAGES, closing, is_whole, opening


@strategy()
def stage_beam(task: Task) -> Search[SearchResult]:
    """Four stages, each with option `width` (2) candidates at option `temperature` (0.6); the tournament's winner is kept.

    Option `pairs`, both_orders or random: what the tournament compares (`tasks.core.search.judge`).
    Candidates with a complete stage take precedence; max_new_tokens limits each stage. Stops: `end` after the conclusion or
    where the policy ended; `length` if a stage was cut off; `untagged` if no candidate of the first stage opens it: then
    these are whole answers, and the best one is the result.
    """
    settings = task.settings
    own = own_options(settings, width=2, temperature=0.6, pairs=pairings(settings))
    result = SearchResult()
    after: Candidate | None = None
    for step, stage in enumerate(STAGES):
        candidates = yield from propose(
            after,
            (own["temperature"],) * own["width"],
            max_tokens=settings.max_new_tokens,
            until=closing(stage),
        )
        untagged = step == 0 and not any(opening(stage) in candidate.text for candidate in candidates)
        whole = [i for i, candidate in enumerate(candidates) if is_whole(candidate.text, stage)]
        purpose = "answer" if untagged else stage.lower()
        among = whole or non_empty(candidates)
        winner = yield from tournament(purpose, task, result.text, candidates, among, own["pairs"])
        result.record(step, candidates, {}, winner, phase=purpose)
        after = candidates[winner]
        if after.text:
            result.add(after)
        if untagged:
            return result.finish(StopReason.UNTAGGED if after.text else how_it_ended(after))
        if after.ended or not whole:
            return result.finish(how_it_ended(after))
    return result.finish(StopReason.END)
