"""How a text becomes a turn of a policy's chat: system prompt, template arguments, and special tokens that are plain text.

Every path that builds a prompt does it here, so that a text can't act as a control token in one of them: a prompt loses
placeholders, and every other special token in a text is written with a blank in it (`< /s>`), so that it's read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from PIL import Image

from tasks.core.placeholders import strip_placeholders

Message = dict[str, Any]

_BLANK = Image.new("RGB", (1, 1))
_SAMPLE, _SAMPLE_ANSWER = "Describe the image.", "A zebra crosses a road."
_NEVER_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")


class AnsweredTurn(NamedTuple):
    """What the chat template writes around an answer."""

    stem: str  # the generation prompt after its last special token
    before: str  # white space between the generation prompt and the answer
    after: str  # behind the answer


@dataclass(frozen=True)
class Chat:
    """A processor's chat template with a profile's settings."""

    processor: Any
    arguments: Mapping[str, Any]  # of the template
    system_prompt: str | None
    placeholders: tuple[str, ...]  # the policy's own

    def check(self) -> None:
        """Refuse settings that the template never reads.

        Raises:
            ValueError: in a line, which setting.
        """
        given = self.arguments
        if given:
            read = template_arguments(self.processor.chat_template) - {
                *_NEVER_GIVEN,
                *self.processor.tokenizer.special_tokens_map,
            }
            if unread := sorted(set(given) - read):
                has = ", ".join(sorted(read)) or "none"
                raise ValueError(f"policy.template: the chat template never reads {', '.join(unread)}; it reads {has}")
        wanted = self.system_prompt
        if wanted and self._plain(wanted) not in self.rendered(_SAMPLE, _BLANK):
            raise ValueError("policy.system_prompt: the chat template drops it; set it to null")

    @cached_property
    def _specials(self) -> re.Pattern[str] | None:
        tokenizer = self.processor.tokenizer
        added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        # A blank can't break up a token of one letter.
        texts = {text for text in (*added, *tokenizer.all_special_tokens, *self.placeholders) if len(text) > 1}
        return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None

    def _plain(self, text: str) -> str:
        """The text with a blank in every special token."""
        while self._specials is not None and self._specials.search(text):
            text = self._specials.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    def messages(self, text: str, image: Image.Image | None, *, prompt: bool = True) -> list[Message]:
        """A user turn after the system prompt; `prompt`: the text is a prompt, whose placeholders are dropped."""
        shown = self._plain(strip_placeholders(text, self.placeholders) if prompt else text)
        system = self.system_prompt
        first = [] if not system else [{"role": "system", "content": [_text_part(self._plain(system))]}]
        return [*first, user_turn(image, shown)]

    def apply(self, chat: Sequence[Message], *, answer_next: bool) -> str:
        """A chat by the template; with `answer_next` the generation prompt follows."""
        render = self.processor.apply_chat_template
        return str(render(list(chat), tokenize=False, add_generation_prompt=answer_next, **self.arguments))

    def rendered(self, text: str, image: Image.Image | None = _BLANK, *, answer_next: bool = True) -> str:
        """A user turn by the template, its image's placeholder not expanded.

        Where no answer follows, the text is what a value model reads: an answer's, and no prompt.
        """
        return self.apply(self.messages(text, image, prompt=answer_next), answer_next=answer_next)

    def ids(self, rendered: str) -> list[int]:
        """Token ids of a rendered turn."""
        return list(self.processor.tokenizer(rendered, add_special_tokens=self._adds_start(rendered))["input_ids"])

    def _adds_start(self, rendered: str) -> bool:
        """Whether the tokenizer adds the first token: the template may have written it already."""
        bos = self.processor.tokenizer.bos_token
        return not (bos and rendered.startswith(bos))

    def inputs(self, images: Sequence[Image.Image], texts: Sequence[str], *, answer_next: bool) -> dict[str, Any]:
        """The processor's tensors for one user turn (image, text) each, padded on the left; texts as in `rendered`."""
        rendered = [
            self.rendered(text, image, answer_next=answer_next) for image, text in zip(images, texts, strict=True)
        ]
        batch = self.processor(
            text=rendered,
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=self._adds_start(rendered[0]),
        )
        return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}

    @cached_property
    def answered_turn(self) -> AnsweredTurn:
        """What the template writes around an answer."""
        turn = self.messages(_SAMPLE, _BLANK)
        answer = {"role": "assistant", "content": [_text_part(_SAMPLE_ANSWER)]}
        prompt = self.apply(turn, answer_next=True)
        whole = self.apply([*turn, answer], answer_next=False)
        stem = prompt
        for token in self.processor.tokenizer.get_added_vocab():
            stem = stem.rsplit(token, 1)[-1] if token else stem
        before, _, after = whole.rpartition(_SAMPLE_ANSWER)
        space = before.removeprefix(prompt) if before.startswith(prompt) else ""
        # Text there (Qwen3.5 closes a thought that its prompt opens) is nothing that an answer is decoded behind.
        return AnsweredTurn(stem, "" if space.strip() else space, after)

    def next_turn(self, text: str) -> str:
        """What the template writes between an answer and the next one: its end, a user turn with a prompt, what follows it.

        Raises:
            ValueError: the template drops earlier answers.
        """
        answer = {"role": "assistant", "content": [_text_part(_SAMPLE_ANSWER)]}
        prompt = user_turn(None, self._plain(strip_placeholders(text, self.placeholders)))
        chat = [*self.messages(_SAMPLE, _BLANK), answer, prompt]
        _, shown, after = self.apply(chat, answer_next=True).partition(_SAMPLE_ANSWER)
        if not shown:
            raise ValueError(
                "the chat template drops earlier answers, so a conversation of several turns can't be learned"
            )
        return after


def user_turn(image: Image.Image | None, text: str) -> Message:
    """A chat message with an image, if there is one, and a text, as they are."""
    parts = [] if image is None else [{"type": "image", "image": image}]
    return {"role": "user", "content": [*parts, _text_part(text)]}


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def template_arguments(template: str | Iterable[Any] | Mapping[str, str]) -> set[str]:
    """Variables that a chat template, or any of several, reads and doesn't set itself."""
    from jinja2 import Environment, meta

    if isinstance(template, str):
        environment = Environment(extensions=["jinja2.ext.loopcontrols"])
        source = re.sub(r"{%-?\s*(?:end)?generation\s*-?%}", "", template)  # transformers' own block
        return meta.find_undeclared_variables(environment.parse(source))
    several = template.values() if isinstance(template, Mapping) else template
    return set().union(*(template_arguments(single) for single in several))
