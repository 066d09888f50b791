"""Other prompts about an image that was read: only the tokens after the image are read again."""

from __future__ import annotations

from functools import lru_cache

from tasks.core.engine.architecture import Prompt
from tasks.core.engine.kv_prefix import KVPrefix
from tasks.core.models.placeholders import image_marks
from tasks.core.models.policy import Policy


class Prompts:
    """Splits a policy's prompts into the tokens up to the end of the image and the tokens after it."""

    def __init__(self, policy: Policy, *, answer_next: bool) -> None:
        """`answer_next`: whether the template's generation prompt follows the text."""
        self.policy, self.answer_next = policy, answer_next
        self._marks = image_marks(policy.model.config, policy.processor)
        # The same sentences are proposed many times, and a chat template is slow.
        self.split = lru_cache(maxsize=50_000)(self._split)

    def _split(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(ids up to the image's one placeholder, ids after it); the second is empty if the image comes last."""
        chat = self.policy.chat
        ids = chat.ids(chat.rendered(text, answer_next=self.answer_next))
        behind = next((count for count, id_ in enumerate(reversed(ids)) if id_ in self._marks), 0)
        after = len(ids) - behind
        return tuple(ids[:after]), tuple(ids[after:])

    def image_prefix(self, prompt: Prompt, text: str) -> KVPrefix | None:
        """The prefix that ends with the image of a prompt that was read; None if the template doesn't put the text last."""
        _, tail = self.split(text)
        if not prompt.divisible or not tail or len(tail) >= len(prompt.ids) or tuple(prompt.ids[-len(tail) :]) != tail:
            return None
        return prompt.image_prefix(len(prompt.ids) - len(tail))

    def tail(self, text: str, like: str) -> tuple[int, ...] | None:
        """The tokens after the image for another text; None if the two prompts differ before the end of the image."""
        (head, tail), (other, _) = self.split(text), self.split(like)
        return tail if head == other and tail else None
