"""Between stages 5 and 4, guided_rollouts: captions that a search chose, as answers to learn a next value model from.

V of the policy's own answers predicts what follows a sentence without guidance. A search is guided, so V learns what follows
then from the captions of a search: one step of policy iteration (Sutton and Barto, section 4.3).
"""

from __future__ import annotations

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Rollout
from tasks.rollout.rollout import RolloutResult
from tasks.stage.quarantine import check_nothing_lost
from tasks.stage.stage import stage


@stage()
def guided_rollouts(captions: Table[Caption], *, number: int, seed: int) -> RolloutResult:
    """The captions of guided round `number` as answers, one row a caption.

    `seed` is the search's. A row's `n_tokens` counts all tokens decoded by the search, its other candidates too.
    """
    searched = lake.read_rows(Caption, captions)
    rows = [
        Rollout(
            rollout_id=f"{caption.sample_id}-guided-{number}",
            sample_id=caption.sample_id,
            policy=caption.policy,
            decode=f"guided-{number}",
            temperature=0.0,
            top_p=1.0,
            seed=seed,
            text=caption.text,
            n_tokens=caption.decode_tokens,
            finish_reason="stop",  # where the search stopped, the answer is over
        )
        for caption in searched
    ]
    check_nothing_lost("guided_rollouts", len(searched), len(rows), 0, 0.0, unit="captions")
    return RolloutResult(lake.publish(Rollout, rows))
