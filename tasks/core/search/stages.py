"""Tagged answers in four stages (LLaVA-CoT, arXiv 2411.10440, section 3.1)."""

from __future__ import annotations

STAGES = ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION")


def opening(stage: str) -> str:
    """The tag that begins a stage."""
    return f"<{stage}>"


def closing(stage: str) -> str:
    """The tag that ends a stage."""
    return f"</{stage}>"


def is_whole(text: str, stage: str) -> bool:
    """Whether the text has a stage from its opening to its closing tag."""
    _, opened, after = text.partition(opening(stage))
    return bool(opened) and closing(stage) in after


def content(text: str, stage: str) -> str:
    """The text of a stage, to the end if it isn't closed; the whole text if it isn't opened."""
    _, opened, after = text.partition(opening(stage))
    return (after if opened else text).partition(closing(stage))[0].strip()


def conclusion(text: str) -> str:
    """The part of a tagged answer that is shown and scored: its conclusion, or all of an answer without tags."""
    return content(text, "CONCLUSION")
