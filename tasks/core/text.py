"""Sentences with offsets. More than a search for full stops: "3.5", "Mr." and "1." end none (VisVM's `split('.')` cuts there).

No character is lost: sentences and the white space between them make up the text, and repeats stay apart.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sentencex

# What the splitter takes for an end but is none when words follow: "approx. 30", "Dr. Who", a list's "1." by itself.
_NO_END = re.compile(r"(?:^|[\s(])(?:approx|ca|incl|resp|vs|Dr|Mr|Mrs|Ms|Prof)\.$|^\d+[.)]$")
PARTIAL, JOINER = "\ufffd", "\u200d"  # what part of a character decodes to; what joins emoji into one
_MOST_BYTES = 16  # tokens that are left out at most
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


class Sentence(NamedTuple):
    """A sentence and where it stands: `text == whole[start:end]`, without surrounding white space."""

    text: str
    start: int
    end: int


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of `text` in order; an empty or blank text has none."""
    pieces: list[tuple[int, int]] = []
    for boundary in sentencex.get_sentence_boundaries("en", text):
        start, end = boundary["start_index"], boundary["end_index"]
        if pieces and _NO_END.search(text[slice(*pieces[-1])].strip()):
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    sentences = []
    for start, end in pieces:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            start += piece.index(stripped)
            sentences.append(Sentence(stripped, start, start + len(stripped)))
    return sentences


def first_sentence_end(text: str) -> int | None:
    """Offset after the first sentence of `text` once a second one has begun; None while that is not sure.

    One token of look-ahead is needed: whether "3." ends a sentence shows in what follows.
    """
    sentences = split_sentences(text)
    return sentences[0].end if len(sentences) > 1 else None


def whole_characters(tokens: Sequence[int], count: int, text_of: Callable[[Sequence[int]], str]) -> int:
    """How many of the first `count` tokens end with a whole character: those that begin another are left out.

    A vocabulary of bytes decodes a part of a character, or the whole run of bytes that it ends, to replacement characters.
    Where a few tokens less don't help, they are what was decoded, and stay.
    """
    for fewer in range(count, max(-1, count - _MOST_BYTES), -1):
        if not fewer or not text_of(tokens[:fewer]).endswith((PARTIAL, JOINER)):
            return fewer
    return count


def fewest_tokens(tokens: Sequence[int], end: int, text_of: Callable[[Sequence[int]], str]) -> int:
    """How many tokens, at least 1, have a text (`text_of`) that begins with the whole text up to the offset `end`.

    A character may be several tokens: none of them is left out.
    """
    wanted = text_of(tokens)[:end]

    def reaches(count: int) -> bool:
        return text_of(tokens[: whole_characters(tokens, count, text_of)])[:end] == wanted

    return bisect_left(range(1, len(tokens)), True, key=reaches) + 1


def joined(sentences: Sequence[str], spaces: Sequence[str]) -> str:
    """Sentences as one text, each after its own white space; the first's is dropped, and a missing one is a blank."""
    known = [*spaces, *[" "] * (len(sentences) - len(spaces))]
    return "".join(space + text for space, text in zip(known, sentences, strict=False)).strip()


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return [match.group().lower() for match in _WORD.finditer(text)]
