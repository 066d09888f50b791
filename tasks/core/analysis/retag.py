"""Staged answers in other forms, to measure what the tags and the stages' order contribute."""

from __future__ import annotations

from random import Random
from typing import Literal

from tasks.core.search.stages import STAGES, closing, opening
from tasks.core.seeds import seed_for
from tasks.core.staged.answers import is_tagged, stages_of
from tasks.core.text import split_sentences

Form = Literal["untagged", "shuffled", "conclusion", "concluded"]


def retag(text: str, form: Form, seed: int, item: str) -> str:
    """An answer in another form.

    `untagged`: the four contents one after another, without their tags. `shuffled`: tags and all, the stages in another order
    than theirs, drawn by seed for every item. `conclusion`: the last stage's content alone. `concluded`: of an answer
    without tags its last sentence, which is the conclusion where `untagged` was learned; a tagged one as it is.

    Raises:
        ValueError: a text without four whole stages, where they are needed.
    """
    if form == "concluded":
        return text if is_tagged(text) else _last_sentence(text)
    contents = stages_of(text)
    if contents is None:
        raise ValueError(f"want four whole stages, got {text[:120]!r}")
    if form == "conclusion":
        return contents[-1]
    if form == "untagged":
        return " ".join(contents)
    order = _another_order(Random(seed_for("retag", seed, item)))
    return " ".join(f"{opening(STAGES[i])}{contents[i]}{closing(STAGES[i])}" for i in order)


def _another_order(rng: Random) -> list[int]:
    """The stages' places in any order but their own, each as likely."""
    own = list(range(len(STAGES)))
    while True:
        drawn = rng.sample(own, len(own))
        if drawn != own:
            return drawn


def _last_sentence(text: str) -> str:
    sentences = split_sentences(text)
    return sentences[-1].text if sentences else ""
