"""The policy as its own judge of two texts (LLaVA-CoT, arXiv 2411.10440, stage-level beam search).

The released code asks once and counts any reply but "I choose response 1" as a vote for the second text, so a policy that
rambles prefers the second. Here both orders are asked, and only a verdict that holds in both counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.core.search.contract import Task
from tasks.core.search.requests import Candidate, Search, ask

VERDICT_TOKENS = 64  # tokens a verdict may take

PURPOSES = {
    "answer": "Which response answers the question better: more correct about the image, and more complete?",
    "summary": "Each response should outline how the question will be approached. Prefer the one that is a plan; one that "
    "already reasons or computes is worse.",
    "caption": "Each response should describe what the image shows that matters to the question. Prefer the one that is "
    "thorough and accurate; a detail that is not in the image is worse than a missing one.",
    "reasoning": "Each response should reason from the description above to an answer. Prefer the one whose every step is "
    "correct and follows from the description and the steps before it.",
    "conclusion": "Each response should state the final answer. Prefer the one that agrees with the description and the "
    "reasoning above; one that refuses to answer is worse.",
}

_CHOICE = re.compile(r"\b(?:choose|prefer|pick|select)\s+(?:(?:the|response|answer|option|number)\s+)*([12])\b", re.I)
_MENTION = re.compile(r"(?<![\w.])([12])(?![\w]|\.\d)")


def question(purpose: str, prompt: str, so_far: str, first: str, second: str) -> str:
    """The judge's prompt: the question, the answer so far, both texts, and what to prefer."""
    before = f"The answer so far:\n{so_far}\n\n" if so_far else ""
    return (
        f"Two responses are to be compared. The question about the image is:\n{prompt}\n\n{before}"
        f"Response 1:\n{first}\n\nResponse 2:\n{second}\n\n{PURPOSES[purpose]}\n"
        'Reply with "I choose response 1" or "I choose response 2".'
    )


def verdict(text: str) -> int | None:
    """1 or 2 if the reply is clear: the number it chooses, or else the only number it mentions. None if it is not."""
    for pattern in (_CHOICE, _MENTION):
        named = {int(number) for number in pattern.findall(text)}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def tournament(
    purpose: str, task: Task, so_far: str, candidates: Sequence[Candidate], among: Sequence[int]
) -> Search[int]:
    """The index of the winner: each of `among` (not empty) in turn challenges the winner so far.

    A challenger wins if the judge prefers it in both orders. With `published` one order is asked, the challenger second, and
    it wins unless the reply contains "I choose response 1". Equal texts are not compared.
    """
    winner, *challengers = among
    for challenger in challengers:
        texts = candidates[winner].text, candidates[challenger].text
        if texts[0] != texts[1] and (yield from _second_wins(purpose, task, so_far, texts)):
            winner = challenger
    return winner


def _second_wins(purpose: str, task: Task, so_far: str, texts: tuple[str, str]) -> Search[bool]:
    first, second = texts
    reply = yield from ask(question(purpose, task.prompt, so_far, first, second), max_tokens=VERDICT_TOKENS)
    if task.settings.published:
        return "I choose response 1" not in reply
    swapped = yield from ask(question(purpose, task.prompt, so_far, second, first), max_tokens=VERDICT_TOKENS)
    return verdict(reply) == 2 and verdict(swapped) == 1
