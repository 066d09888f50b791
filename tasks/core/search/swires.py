"""SWIRES: stage-wise retracing search (LLaVA-CoT, arXiv 2411.10440, section 3.2.2 and appendix D).

The paper's reward model judges dialogues; here a text's reward is the mean score of its sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.core.search.contract import ANSWER, Ask, Candidate, Found, Settings, Strategy, Task, say
from tasks.core.search.options import own_options
from tasks.core.search.ranking import how_it_ended, sentence_means, worth
from tasks.core.search.stages import closing, content, is_whole, opening

Z = 0.2533  # four in ten of a normal distribution lie above mean + Z deviations
PUBLISHED_CUTOFF, PUBLISHED_ROUNDS, PUBLISHED_CONCLUSIONS = -0.243, 5, 3


@dataclass(frozen=True)
class _Path:
    """An answer's stages so far, the trace rows they stand on, and the reward of the last."""

    texts: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    last: Candidate | None = None
    reward: float | None = None


def search(task: Task) -> Ask[Found]:
    """One summary; captions and their reasonings until two are good enough; conclusions of the best ones.

    A round draws option `captions` (4) captions, keeps the option `kept` (2) with the largest reward, and draws captions /
    kept reasonings for each into a pool. It is repeated from the captions on until the pool's second best reward exceeds the
    cutoff, at most option `rounds` (3) times. Then the best option `conclusions` (2) reasonings get one each, at option
    `temperature` (0.6) as everything; the best conclusion wins. Chosen in the trace: the winner's stages. max_new_tokens is
    the limit of each stage. A policy that opens no summary gives whole answers in place of captions, and the best one wins.

    The cutoff is reward_mean + 0.2533 reward_std (options; the run measures them on its own rollouts, the warm-up batch);
    `published`: -0.243 (that of the paper's reward model), 5 rounds, 3 conclusions. Stops: `cutoff` if it was exceeded, else
    `rounds`; where the policy got no further than an earlier stage `unfinished`; without a summary as that one ended.
    """
    settings = task.settings
    own = _options(settings)
    cutoff = _cutoff(settings, own)
    found = Found()
    start = yield from _stage(found, task, own, _Path(), "SUMMARY", 1)
    first = found.trace[0].proposal
    tagged = opening("SUMMARY") in first.text
    if tagged and not start:
        found.sentences = [first.text]
        found.trace[0] = replace(found.trace[0], chosen=True)
        return found.stop(how_it_ended(first))
    root = start[0] if tagged else _Path()
    pool: list[_Path] = []
    earlier: list[_Path] = [root]
    reason = "rounds"
    for _ in range(own["rounds"]):
        captions = yield from _stage(found, task, own, root, "CAPTION" if tagged else ANSWER, own["captions"])
        earlier += captions
        pool += (yield from _reasonings(found, task, own, captions)) if tagged else captions
        if len(pool) > 1 and worth(_top(pool, 2)[1].reward) > cutoff:
            reason = "cutoff"
            break
    finished = pool
    if tagged:
        finished = []
        for path in _top(pool, own["conclusions"]):
            finished += yield from _stage(found, task, own, path, "CONCLUSION", 1)
    return _result(found, finished, pool or earlier, reason)


def _result(found: Found, finished: Sequence[_Path], unfinished: Sequence[_Path], reason: str) -> Found:
    """The best finished path, or else the best and longest unfinished one."""
    longest = max((len(path.texts) for path in unfinished), default=0)
    (winner,) = _top(finished or [path for path in unfinished if len(path.texts) == longest], 1)
    found.sentences = list(winner.texts)
    for row in winner.rows:
        found.trace[row] = replace(found.trace[row], chosen=True)
    return found.stop(reason if finished else "unfinished")


def _reasonings(found: Found, task: Task, own: dict[str, Any], captions: Sequence[_Path]) -> Ask[list[_Path]]:
    reasonings: list[_Path] = []
    for caption in _top(captions, own["kept"]):
        each = max(1, own["captions"] // own["kept"])
        reasonings += yield from _stage(found, task, own, caption, "REASONING", each)
    return reasonings


def _stage(found: Found, task: Task, own: dict[str, Any], path: _Path, stage: str, count: int) -> Ask[list[_Path]]:
    """Continuations of a path by one stage (or a whole answer), rewarded; those that aren't whole are left out."""
    candidates = yield from say(
        path.last,
        (own["temperature"],) * count,
        max_tokens=task.settings.max_new_tokens,
        until=ANSWER if stage == ANSWER else closing(stage),
    )
    rewards: list[float | None] = [None] * count
    if stage != "SUMMARY":
        rewards = yield from sentence_means([content(candidate.text, stage) for candidate in candidates])
    step = found.trace[-1].step + 1 if found.trace else 0
    row = len(found.trace)
    found.note(step, candidates, {i: (one, None) for i, one in enumerate(rewards)}, None, phase=stage.lower())
    return [
        _Path((*path.texts, candidate.text), (*path.rows, row + i), candidate, rewards[i])
        for i, candidate in enumerate(candidates)
        if (candidate.text if stage == ANSWER else is_whole(candidate.text, stage))
    ]


def _top(paths: Sequence[_Path], count: int) -> list[_Path]:
    """The paths of the largest rewards, best first; of equals the earlier."""
    return sorted(paths, key=lambda path: -worth(path.reward))[:count]


def _options(settings: Settings) -> dict[str, Any]:
    own = own_options(
        settings,
        captions=4,
        kept=2,
        rounds=PUBLISHED_ROUNDS if settings.published else 3,
        conclusions=PUBLISHED_CONCLUSIONS if settings.published else 2,
        temperature=0.6,
        reward_mean=None,
        reward_std=None,
    )
    if (own["reward_mean"] is None) != (own["reward_std"] is None):
        raise ValueError("swires has one of reward_mean and reward_std: want both, or neither for the margin as cutoff")
    return own


def _cutoff(settings: Settings, own: dict[str, Any]) -> float:
    if settings.published:
        return PUBLISHED_CUTOFF
    if own["reward_mean"] is None:
        raise ValueError("no cutoff: want options reward_mean and reward_std, or label a run's rollouts first")
    return float(own["reward_mean"] + Z * own["reward_std"])


def needs(settings: Settings) -> frozenset[str]:
    """The scorer; how it scores this run's answers too, where nothing else says what the cutoff is."""
    given = settings.published or "reward_mean" in settings.options
    return frozenset({"scorer"} if given else {"scorer", "answers"})


swires = Strategy(search, needs)
