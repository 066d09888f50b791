"""Stage-level beam search judged by the policy itself (LLaVA-CoT, arXiv 2411.10440, first version).

The released code also asks, text only, whether each reasoning is correct before it compares two; that is left out here.
"""

from __future__ import annotations

from tasks.core.search.contract import Ask, Candidate, Found, Task, say, strategy
from tasks.core.search.judge import tournament
from tasks.core.search.options import own_options
from tasks.core.search.ranking import how_it_ended, speaking
from tasks.core.search.stages import STAGES, closing, is_whole, opening


@strategy()
def stage_beam(task: Task) -> Ask[Found]:
    """Four stages; in each, option `width` (2) candidates at option `temperature` (0.6), the tournament's winner goes on.

    A candidate that holds its stage whole goes before one that doesn't; max_new_tokens is the limit of each stage. Stops:
    `end` after the conclusion or where the policy ended; `length` if a stage was cut off; `untagged` if no candidate of the
    first stage opens it: then these are whole answers, and the best one is the result.
    """
    settings = task.settings
    own = own_options(settings, width=2, temperature=0.6)
    found = Found()
    after: Candidate | None = None
    for step, stage in enumerate(STAGES):
        candidates = yield from say(
            after,
            (own["temperature"],) * own["width"],
            max_tokens=settings.max_new_tokens,
            until=closing(stage),
        )
        untagged = step == 0 and not any(opening(stage) in candidate.text for candidate in candidates)
        whole = [i for i, candidate in enumerate(candidates) if is_whole(candidate.text, stage)]
        purpose = "answer" if untagged else stage.lower()
        winner = yield from tournament(purpose, task, found.text, candidates, whole or speaking(candidates))
        found.note(step, candidates, {}, winner, phase=purpose)
        after = candidates[winner]
        if after.text:
            found.sentences.append(after.text)
        if untagged:
            return found.stop("untagged" if after.text else how_it_ended(after))
        if after.ended or not whole:
            return found.stop(how_it_ended(after))
    return found.stop("end")
