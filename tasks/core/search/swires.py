"""SWIRES: stage-wise retracing search (LLaVA-CoT, arXiv 2411.10440, section 3.2.2 and appendix D).

The paper's reward model judges dialogues; here the reward of a text is the mean score of its sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.core.search.contract import SearchResult, Settings, StopReason, Strategy, Task
from tasks.core.search.options import own_options
from tasks.core.search.ranking import how_it_ended, sentence_means, worth
from tasks.core.search.requests import ANSWER, Candidate, Search, propose
from tasks.core.search.stages import closing, content, is_whole, opening

Z = 0.2533  # 40% of a normal distribution lie above mean + Z standard deviations
PUBLISHED_CUTOFF, PUBLISHED_ROUNDS, PUBLISHED_CONCLUSIONS = -0.243, 5, 3


@dataclass(frozen=True)
class _Path:
    """The stages of an answer so far, their rows in the trace, and the reward of the last stage."""

    texts: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()  # white space before each
    rows: tuple[int, ...] = ()
    last: Candidate | None = None
    reward: float | None = None


def search(task: Task) -> Search[SearchResult]:
    """One summary; captions and their reasonings until two are good enough; conclusions of the best ones.

    A round draws `captions` (4) captions, keeps the `kept` (2) with the largest rewards, and draws captions / kept reasonings
    for each of them into a pool. Rounds are repeated until the second best reward in the pool exceeds the cutoff, at most
    `rounds` (3) times. Then the best `conclusions` (2) reasonings get one conclusion each, and the best conclusion wins.
    Everything is drawn at `temperature` (0.6); all these are options. The trace marks the winner's stages as chosen.
    max_new_tokens limits each stage. A policy that opens no summary gives whole answers instead of captions; the best one wins.

    The cutoff is reward_mean + 0.2533 reward_std (options; the run measures them on its own rollouts, the warm-up batch);
    `published`: -0.243 (for the paper's reward model), 5 rounds, 3 conclusions. Stops: `cutoff` if it was exceeded, else
    `rounds`; `unfinished` if the policy reached no conclusion; if the summary itself was cut off, as that ended.
    """
    settings = task.settings
    own = _options(settings)
    cutoff = _cutoff(settings, own)
    result = SearchResult()
    start = yield from _stage(result, task, own, _Path(), "SUMMARY", 1)
    first = result.trace[0].proposal
    tagged = opening("SUMMARY") in first.text
    if tagged and not start:
        result.sentences = [first.text]
        result.trace[0] = replace(result.trace[0], chosen=True)
        return result.finish(how_it_ended(first))
    root = start[0] if tagged else _Path()
    pool: list[_Path] = []
    earlier: list[_Path] = [root]
    reason = StopReason.ROUNDS
    for _ in range(own["rounds"]):
        captions = yield from _stage(result, task, own, root, "CAPTION" if tagged else ANSWER, own["captions"])
        earlier += captions
        pool += (yield from _reasonings(result, task, own, captions)) if tagged else captions
        if len(pool) > 1 and worth(_top(pool, 2)[1].reward) > cutoff:
            reason = StopReason.CUTOFF
            break
    finished = pool
    if tagged:
        finished = []
        for path in _top(pool, own["conclusions"]):
            finished += yield from _stage(result, task, own, path, "CONCLUSION", 1)
    return _result(result, finished, pool or earlier, reason)


def _result(
    result: SearchResult, finished: Sequence[_Path], unfinished: Sequence[_Path], reason: StopReason
) -> SearchResult:
    """The best finished path, or else the best of the longest unfinished ones."""
    longest = max((len(path.texts) for path in unfinished), default=0)
    (winner,) = _top(finished or [path for path in unfinished if len(path.texts) == longest], 1)
    result.sentences, result.spaces = list(winner.texts), list(winner.spaces)
    for row in winner.rows:
        result.trace[row] = replace(result.trace[row], chosen=True)
    return result.finish(reason if finished else StopReason.UNFINISHED)


def _reasonings(
    result: SearchResult, task: Task, own: dict[str, Any], captions: Sequence[_Path]
) -> Search[list[_Path]]:
    reasonings: list[_Path] = []
    for caption in _top(captions, own["kept"]):
        each = max(1, own["captions"] // own["kept"])
        reasonings += yield from _stage(result, task, own, caption, "REASONING", each)
    return reasonings


def _stage(
    result: SearchResult, task: Task, own: dict[str, Any], path: _Path, stage: str, count: int
) -> Search[list[_Path]]:
    """Continuations of a path by one stage (or a whole answer), with rewards; incomplete ones are left out."""
    candidates = yield from propose(
        path.last,
        (own["temperature"],) * count,
        max_tokens=task.settings.max_new_tokens,
        until=ANSWER if stage == ANSWER else closing(stage),
    )
    rewards: list[float | None] = [None] * count
    if stage != "SUMMARY":
        rewards = yield from sentence_means([content(candidate.text, stage) for candidate in candidates])
    step = result.trace[-1].step + 1 if result.trace else 0
    row = len(result.trace)
    result.record(step, candidates, {i: (reward, None) for i, reward in enumerate(rewards)}, None, phase=stage.lower())
    return [
        _Path(
            (*path.texts, candidate.text), (*path.spaces, candidate.space), (*path.rows, row + i), candidate, rewards[i]
        )
        for i, candidate in enumerate(candidates)
        if (candidate.text if stage == ANSWER else is_whole(candidate.text, stage))
    ]


def _top(paths: Sequence[_Path], count: int) -> list[_Path]:
    """The paths with the largest rewards, best first; equal ones in order."""
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
    """The scorer; also the mean and deviation of this run's answer scores, unless the settings give the cutoff."""
    given = settings.published or "reward_mean" in settings.options
    return frozenset({"scorer"} if given else {"scorer", "answers"})


swires = Strategy(search, needs)
