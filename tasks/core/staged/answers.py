"""Answers in four tagged stages: the requests to a teacher and a judge, and which answers are kept (LLaVA-CoT, section 3.1).

The paper keeps an answer whose conclusion a second model calls the same as the data set's. Here there are two more checks: the
conclusion is compared with the answer by rule, or with what most of the policy's own answers conclude. Departs from the
released code, which looks for the conclusion alone: every stage must be there, whole, once and in its place, for all of
them are learned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tasks.core.search.majority_vote import normalise
from tasks.core.search.stages import STAGES, closing, conclusion, content, opening

ACCEPTED = "accepted"

_TAG = re.compile(f"</?(?:{'|'.join(STAGES)})>")
_WHOLE = re.compile(r"\s*".join(f"{opening(stage)}(.*?){closing(stage)}" for stage in STAGES), re.DOTALL)


class Ruling(NamedTuple):
    """The verdict on an answer: its conclusion, and `accepted` or why not."""

    conclusion: str
    reason: str


def stages_of(text: str) -> tuple[str, ...] | None:
    """The four stages' contents, stripped; None unless each is there once, in order, whole, with nothing outside them."""
    match = _WHOLE.fullmatch(text.strip())
    if match is None or len(_TAG.findall(text)) != 2 * len(STAGES):
        return None
    return tuple(part.strip() for part in match.groups())


def in_stages(contents: Sequence[str]) -> str:
    """Four contents as a tagged answer, as a search by stages joins them."""
    return " ".join(f"{opening(stage)}{part}{closing(stage)}" for stage, part in zip(STAGES, contents, strict=True))


def without_tags(text: str) -> str:
    """The text that stands in and around the stages."""
    return _TAG.sub(" ", text)


def is_tagged(text: str) -> bool:
    """Whether a text opens any stage."""
    return any(opening(stage) in text for stage in STAGES)


def stated(text: str) -> str:
    """What an answer concludes: its CONCLUSION, or all of it where it has no stages; empty where it stops before one."""
    return conclusion(text) if opening("CONCLUSION") in text or not is_tagged(text) else ""


def form_problem(text: str) -> str | None:
    """Why an answer can't be learned whatever its words; None if its form is right.

    `no_answer`: it is empty, or its conclusion is. `not_tagged`: it opens no stage. `incomplete`: a stage is missing, empty,
    cut off, repeated or out of its place, or something stands outside the stages.
    """
    if not text.strip():
        return "no_answer"
    if not is_tagged(text):
        return "not_tagged"
    contents = stages_of(text)
    if contents is None:
        return "incomplete"
    if not contents[-1]:
        return "no_answer"
    return None if all(contents) else "incomplete"


def rule(text: str, problem: Callable[[str], str | None]) -> Ruling:
    """The verdict: first on the form, then by `problem` of the conclusion (None: there is none)."""
    concluded = content(text, "CONCLUSION") if opening("CONCLUSION") in text else ""
    return Ruling(concluded, form_problem(text) or problem(concluded) or ACCEPTED)


def majority(texts: Sequence[str]) -> tuple[str, float]:
    """(what most answers conclude, normalised; the share of all answers that do); of equals the first.

    An answer without a conclusion agrees with none, but counts: ("", 0.0) where none concludes anything.
    """
    votes = Counter(vote for text in texts if (vote := normalise(stated(text))))
    if not votes:
        return "", 0.0
    winner, count = votes.most_common(1)[0]
    return winner, count / len(texts)


def agreement_problem(concluded: str, texts: Sequence[str], least: float) -> str | None:
    """`no_majority` if fewer than `least` of the answers agree, `disagrees` if they agree on something else."""
    winner, share = majority(texts)
    if not winner or share < least:
        return "no_majority"
    return None if normalise(concluded) == winner else "disagrees"


def teaching_request(question: str, answer: str) -> str:
    """The request to a teacher beside the image: to lead from it to the known answer, in four tagged parts."""
    return (
        "Above is an image. Below are a question about it and the answer, which is known to be right. Show how someone who "
        "looks carefully gets from the image to that answer. Write four parts, each inside its tags, in this order, and "
        "nothing outside the tags:\n"
        f"{opening('SUMMARY')}how you will go about the question, in a sentence or two, before any finding"
        f"{closing('SUMMARY')}\n"
        f"{opening('CAPTION')}what the image shows, as far as the question needs it{closing('CAPTION')}\n"
        f"{opening('REASONING')}step by step from what the image shows to the answer{closing('REASONING')}\n"
        f"{opening('CONCLUSION')}the answer alone, as short as the known one{closing('CONCLUSION')}\n"
        "Write as one who was not told the answer: never say that it was given.\n\n"
        f"Question: {question}\nKnown answer: {answer}"
    )


def staged_reply(reply: str) -> str | None:
    """The tagged answer in a teacher's reply, whatever stands around it; None if there is none that is whole."""
    start, end = reply.find(opening(STAGES[0])), reply.rfind(closing(STAGES[-1]))
    contents = stages_of(reply[start : end + len(closing(STAGES[-1]))]) if 0 <= start < end else None
    return in_stages(contents) if contents is not None and all(contents) else None


def judging_request(question: str, answer: str, other: str) -> str:
    """The request to a judge, text only: whether a conclusion means the same as the known answer."""
    return (
        "A question about an image has a known answer. Somebody else answered it, too. Do both answers mean the same?\n\n"
        f"Question: {question}\nKnown answer: {answer}\nOther answer: {other}\n\n"
        "Reply with one word. valid: they mean the same. invalid: they don't, or the other answer leaves the question open "
        "or refuses it."
    )


def judged_valid(reply: str) -> bool | None:
    """A judge's verdict: True for `valid`, False for `invalid`, None for anything but one of the two words."""
    word = reply.strip().strip("\"'`*_.!").lower()
    return {"valid": True, "invalid": False}.get(word)
