"""Where the shipped demo models are, and prompts for them."""

from __future__ import annotations

PROMPTS = [
    "Describe the following image.",
    "What do you see happening in this image?",
    "Can you describe the main features of this image for me?",
    "What are the key elements in this picture?",
    "Go.",
]
