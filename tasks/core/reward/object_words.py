"""Rewards of object words (FiSAO, arXiv 2410.14148): baselines of right and hallucinated words, margins, rewarded tokens.

A word's score s is the cosine of the image and PHRASE with the word's object. With the mean scores of right words (mu_right)
and of hallucinated ones (mu_hallucinated) and a margin lambda,

    r = N(s - (mu_right + lambda))             where s > mu_right + lambda
    r = -N((mu_hallucinated - lambda) - s)     where s < mu_hallucinated - lambda
    r = 0                                      between, and for every token that is no object word

so half of the right words, those under their own mean, earn nothing even at lambda 0. The paper's N could not be read. Here it
divides by the scores' deviation within the two groups, which makes a reward of 1 mean the same for any scorer.

The same rule may reward sentences, for a comparison in which nothing else differs: s is the cosine of the image and the
sentence, a sentence is right if all objects that it names are, and the reward stands on its last token.

Departs from the paper: a repeated mention of an object earns nothing (it may cost), or saying one right word for ever would
pay best; and the scorer is the run's own, not the policy's vision tower, whose text encoder a policy doesn't carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.reward.shaping import otsu_threshold
from tasks.core.text import fewest_tokens, split_sentences

# CLIP's own template. A bare word is nothing that the demo's scorer was trained on: its AUC is 0.52, with this 1.00.
PHRASE = "a photo of a {object}."
LEAST_EFFECT = 0.2  # of the deviation: what Cohen (1988) calls a small effect; a smaller one carries no information


class Unit(NamedTuple):
    """What a reward is for, an object word or a sentence that names objects: `text == answer[start:end]`."""

    text: str
    start: int
    end: int
    objects: tuple[str, ...]  # COCO's names, each once, in order; at least one
    phrase: str  # what is scored against the image


def units_of(answer: str, per: Literal["tokens", "sentences"]) -> list[Unit]:
    """An answer's object words, or its sentences that name objects, in order."""
    mentions = find_mentions(answer)
    if per == "tokens":
        return [Unit(m.text, m.start, m.end, (m.object,), PHRASE.format(object=m.object)) for m in mentions]
    units = []
    for sentence in split_sentences(answer):
        named = tuple(dict.fromkeys(m.object for m in mentions if sentence.start <= m.start < sentence.end))
        if named:
            units.append(Unit(sentence.text, sentence.start, sentence.end, named, sentence.text))
    return units


class BaselineError(ValueError):
    """Scores that give no usable baselines."""


class Baselines(NamedTuple):
    """Mean scores of right and of hallucinated words, and the scores' deviation within these groups."""

    mu_right: float
    mu_hallucinated: float
    deviation: float


def measured_baselines(scores: np.ndarray, right: np.ndarray) -> Baselines:
    """Baselines of scores [N] whose words are known to be right or not, bool [N].

    Raises:
        BaselineError: too few of a kind, or the two means in the wrong order or too near.
    """
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape}, right {right.shape}: want two of [N]")
    groups = scores[right], scores[~right]
    if min(map(len, groups)) < 2:
        raise BaselineError(
            f"{len(groups[0])} right and {len(groups[1])} hallucinated words: a baseline needs at least two of each; "
            "roll out more images (sample.images), or use another finetune.method"
        )
    baselines = _baselines(*groups)
    gap = baselines.mu_right - baselines.mu_hallucinated
    if gap < LEAST_EFFECT * baselines.deviation:
        raise BaselineError(
            f"right words score {baselines.mu_right:.3f} and hallucinated ones {baselines.mu_hallucinated:.3f} with deviation "
            f"{baselines.deviation:.3f}: want the first larger by at least {LEAST_EFFECT:g} deviations; this scorer can't tell "
            "them apart, so its rewards would be noise: use another scorer.checkpoint"
        )
    return baselines


def split_baselines(scores: np.ndarray) -> tuple[Baselines, np.ndarray]:
    """Baselines of scores [N] split into two groups at Otsu's threshold (1979), and which are in the upper group, bool [N].

    Any scores can be split, so this can't detect a scorer that doesn't separate the words; the health check's AUC can.

    Raises:
        BaselineError: scores without spread.
    """
    try:
        upper = scores >= otsu_threshold(scores)
    except ValueError:
        raise BaselineError(
            f"{len(scores)} scores of object words without spread: no threshold splits them; see the token_scores table"
        ) from None
    return _baselines(scores[upper], scores[~upper]), upper


def _baselines(right: np.ndarray, wrong: np.ndarray) -> Baselines:
    squares = float(((right - right.mean()) ** 2).sum() + ((wrong - wrong.mean()) ** 2).sum())
    deviation = (squares / max(1, len(right) + len(wrong) - 2)) ** 0.5
    # Two scores in all have no deviation within their groups.
    return Baselines(float(right.mean()), float(wrong.mean()), deviation or float(right.mean() - wrong.mean()))


def word_rewards(
    objects: Sequence[tuple[str, ...]], scores: Sequence[float | None], baselines: Baselines, *, margin: float
) -> list[float]:
    """Rewards of one answer's object words, or sentences, in their order; see the module for the rule.

    Args:
        objects: what each word or sentence names; where it names nothing new it earns nothing.
        scores: of the words or sentences; None: can't be scored, rewarded with 0.
        baselines: measured before.
        margin: lambda, in cosine.
    """
    rewards: list[float] = []
    named: set[str] = set()
    for names, score in zip(objects, scores, strict=True):
        reward = 0.0 if score is None else _reward(score, baselines, margin)
        rewards.append(min(reward, 0.0) if named.issuperset(names) else reward)
        named.update(names)
    return rewards


def _reward(score: float, baselines: Baselines, margin: float) -> float:
    above = score - (baselines.mu_right + margin)
    below = (baselines.mu_hallucinated - margin) - score
    if above > 0:
        return above / baselines.deviation
    return -below / baselines.deviation if below > 0 else 0.0


def rewarded_tokens(
    tokens: Sequence[int], words: Iterable[tuple[int, float]], text_of: Callable[[Sequence[int]], str]
) -> dict[int, float]:
    """Token index -> reward: a word's reward is given to the token that completes it.

    Args:
        tokens: of the answer, without an end token; at least one.
        words: (offset after the word's last character, reward) in the text of all tokens.
        text_of: decodes, without white space in front.
    """
    rewards: dict[int, float] = {}
    for end, reward in words:
        index = fewest_tokens(tokens, end, text_of) - 1
        rewards[index] = rewards.get(index, 0.0) + reward
    return rewards
