"""The policy as its own judge of two texts (LLaVA-CoT, arXiv 2411.10440, stage-level beam search).

The paper compares pairs drawn at random, each once, and the released code counts any reply but "I choose response 1" as a
vote for the second text, so a policy that rambles prefers the second. Here both orders are asked unless option `pairs` is
`random`, and only a verdict that holds in both counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.core.search.contract import Settings, Task
from tasks.core.search.requests import Candidate, Search, ask
from tasks.core.seeds import uniforms

VERDICT_TOKENS = 64  # tokens a verdict may take
BOTH_ORDERS, RANDOM = "both_orders", "random"  # which pairs a tournament compares

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


def pairings(settings: Settings) -> tuple[str, ...]:
    """The values of option `pairs`, the default first: the released code draws its pairs."""
    return (RANDOM, BOTH_ORDERS) if settings.published else (BOTH_ORDERS, RANDOM)


def tournament(
    purpose: str, task: Task, so_far: str, candidates: Sequence[Candidate], among: Sequence[int], pairs: str
) -> Search[int]:
    """The index of the winner of `among` (not empty), of whom all but one lose a comparison.

    Args:
        purpose: one of PURPOSES.
        task: whose question is answered.
        so_far: the answer before the candidates.
        candidates: all of them.
        among: the indices of those that are compared.
        pairs: `both_orders`: each in turn challenges the winner so far, and wins if the judge prefers it in both orders.
            `random`: two are drawn (by the task's seed) and asked about once, in the order drawn; the winner stays in, the
            earlier one if the verdict is unclear.

    Equal texts are not compared. With `published` any reply but "I choose response 1" is a vote for the second text.
    """
    if pairs == RANDOM:
        return (yield from _drawn_pairs(purpose, task, so_far, candidates, among))
    winner, *challengers = among
    for challenger in challengers:
        first, second = candidates[winner].text, candidates[challenger].text
        if first == second:
            continue
        choice = yield from _choice(purpose, task, so_far, first, second)
        swapped = yield from _choice(purpose, task, so_far, second, first)
        if (choice, swapped) == (2, 1):
            winner = challenger
    return winner


def _drawn_pairs(
    purpose: str, task: Task, so_far: str, candidates: Sequence[Candidate], among: Sequence[int]
) -> Search[int]:
    left = list(among)
    while len(left) > 1:
        draws = uniforms(2, *task.seed, "pair", purpose, len(left))
        first, second = (left.pop(int(draw * len(left))) for draw in draws)
        choice = None
        if candidates[first].text != candidates[second].text:
            choice = yield from _choice(purpose, task, so_far, candidates[first].text, candidates[second].text)
        left.append({1: first, 2: second, None: min(first, second)}[choice])
    return left[0]


def _choice(purpose: str, task: Task, so_far: str, first: str, second: str) -> Search[int | None]:
    """What the judge chooses, in this order: 1, 2, or None if its reply is unclear."""
    reply = yield from ask(question(purpose, task.prompt, so_far, first, second), max_tokens=VERDICT_TOKENS)
    if task.settings.published:
        return 1 if "I choose response 1" in reply else 2
    return verdict(reply)
