"""Texts that stand for an image, a video or sound in a prompt, as LLaVA-style data files write them.

A chat template writes a policy's own placeholder; one more in a prompt would ask for an image that isn't there. No torch here:
profiles and question files are checked by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LITERALS = (
    "<image>", "<video>", "<audio>", "<|image|>", "<|video|>", "<|audio|>", "<|image_pad|>", "<|video_pad|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<image_soft_token>", "<start_of_image>", "<end_of_image>",
    "<image_placeholder>", "<ImageHere>", "<IMG_CONTEXT>", "<img>", "</img>", "[IMG]", "[IMG_BREAK]", "[IMG_END]",
)  # fmt: skip
"""Of the architectures that are supported; a loaded policy adds its own."""


def strip_placeholders(text: str, placeholders: Iterable[str] = LITERALS) -> str:
    """The text without placeholders and without the white space around them; between words a blank or a line break stays."""
    pattern = "|".join(re.escape(token) for token in sorted(placeholders, key=len, reverse=True))
    if not pattern or not re.search(pattern, text):
        return text

    def between(match: re.Match[str]) -> str:
        if match.start() == 0 or match.end() == len(text):
            return ""
        return "\n" if "\n" in match.group() else " "

    return re.sub(rf"\s*(?:(?:{pattern})\s*)+", between, text)
