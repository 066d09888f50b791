"""Conversations as LLaVA's data sets write them: messages of `human` and `gpt` in turn, the image's place in the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLACEHOLDER = "<image>"  # LLaVA's; a policy's chat template has its own


class ConversationError(ValueError):
    """What is no conversation that can be learned."""

    def __init__(self, reason: str, text: str) -> None:
        """`reason`: a word for tables."""
        super().__init__(text)
        self.reason = reason


def exchanges_of(conversations: Any) -> list[tuple[str, str]]:
    """(question, answer) of every turn of a line's `conversations`, without the image's placeholder.

    A last question without an answer is dropped.

    Raises:
        ConversationError: `no_exchange`, `several_images` or `empty`.
    """
    messages = [_message(item) for item in conversations] if isinstance(conversations, list) else []
    pairs = list(zip(messages[::2], messages[1::2], strict=False))
    if not pairs:
        raise ConversationError("no_exchange", _ALTERNATE)
    exchanges = []
    for number, ((who, question), (other, answer)) in enumerate(pairs, 1):
        if (who, other) != ("human", "gpt"):
            raise ConversationError("no_exchange", f"turn {number}: {_ALTERNATE}")
        text = question.replace(PLACEHOLDER, "").strip()
        if not text or not answer.strip():
            raise ConversationError("empty", f"turn {number}: {'no answer' if text else 'no question'}")
        exchanges.append((text, answer.strip()))
    places = sum(question.count(PLACEHOLDER) for (_, question), _ in pairs)
    if places > 1:
        raise ConversationError("several_images", f"{places} places for images, one can be learned")
    return exchanges


_ALTERNATE = "conversations must be messages of human and gpt in turn, each with a value"


def _message(item: Any) -> tuple[str, str]:
    """(who, what) of a message; empty strings for what is not there."""
    who, what = (item.get("from"), item.get("value")) if isinstance(item, Mapping) else (None, None)
    return (who, what) if isinstance(who, str) and isinstance(what, str) else ("", "")
