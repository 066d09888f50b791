"""A cut never ends inside a character, and white space between sentences is that of their tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasks.core.engine.rows import Completion, Draw, Row, TokenTexts, sentences_of
from tasks.core.models.decoding_rules import DecodingRules
from tasks.core.search.contract import SearchResult
from tasks.core.search.requests import ANSWER, SENTENCE, Candidate
from tasks.core.text import fewest_tokens, joined, split_sentences

GREEDY = Draw(0.0, 1.0, ())
TEXTS = [
    "A dog. A cat.",
    "这是一只狗。它在跑。",
    "すごい\uff01犬がいます。",
    "A happy dog 🐶\n\nA cat sleeps.",
    "An astronaut 👩\u200d🚀 floats. She waves.",
    "Één hond. Twee katten.",
]


def byte_level() -> hf.PreTrainedTokenizerFast:
    """Every byte is a token, as GPT-2's and Qwen's vocabularies spell what they don't know."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*letters, "</s>"])}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["</s>"])
    return hf.PreTrainedTokenizerFast(tokenizer_object=built, eos_token="</s>", clean_up_tokenization_spaces=False)


def byte_fallback() -> hf.PreTrainedTokenizerFast:
    """ASCII letters are tokens, any other character is bytes such as <0xE4>, as in Llama's vocabulary."""
    known = ["▁", *(chr(code) for code in range(33, 127)), "\n"]
    vocabulary = [*known, *(f"<0x{byte:02X}>" for byte in range(256)), "<unk>", "</s>"]
    bpe = models.BPE(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], unk_token="<unk>", byte_fallback=True
    )
    built = Tokenizer(bpe)
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    built.add_special_tokens(["</s>"])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=built, eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


TOKENIZERS = {"byte level": byte_level(), "byte fallback": byte_fallback()}


class Prefix:
    """Tokens of an answer after an empty prompt."""

    def __init__(self, answer: tuple[int, ...] = ()) -> None:
        self.answer = answer

    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (), self.answer


def texts_of(tokenizer: hf.PreTrainedTokenizerFast) -> TokenTexts:
    embeddings = torch.nn.Embedding(len(tokenizer), 1)
    return TokenTexts(
        SimpleNamespace(
            tokenizer=tokenizer,
            end_ids=frozenset([tokenizer.eos_token_id]),
            rules=DecodingRules(),
            model=SimpleNamespace(get_input_embeddings=lambda: embeddings),
        )
    )


def decoded(tokenizer, ids, *, until: str = SENTENCE, limit: int = 500, before: tuple[int, ...] = ()) -> Completion:
    """The completion of a policy that decodes these tokens."""
    row, texts = Row(Prefix(before), GREEDY, until, limit), texts_of(tokenizer)
    for token in ids:
        if row.take(token, texts):
            return row.completion(SimpleNamespace(tokens=tuple(row.tokens), first=lambda n: n))
    raise AssertionError("not over")


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_kept_tokens_decode_to_the_sentence(name: str, text: str) -> None:
    tok = TOKENIZERS[name]
    ids = tok(text, add_special_tokens=False).input_ids
    assert tok.decode(ids).strip() == text
    completion = decoded(tok, [*ids, tok.eos_token_id])
    first = split_sentences(text)[0]
    assert completion.text == first.text
    assert tok.decode(list(completion.tokens)).strip() == first.text
    count = fewest_tokens(ids, first.end, lambda some: tok.decode(list(some)))
    assert tok.decode(ids[:count]).strip() == first.text
    assert tok.decode(ids[: count - 1]).strip() != first.text, "more tokens than it needs"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_full_stop_of_several_tokens_ends_a_sentence_before_the_answer_ends(name: str) -> None:
    tok = TOKENIZERS[name]
    ids = tok("这是一只狗。它在跑。她在笑。", add_special_tokens=False).input_ids
    completion = decoded(tok, [*ids, tok.eos_token_id])
    assert completion.text == "这是一只狗。"
    assert completion.drawn < len(ids), "the whole answer was decoded for its first sentence"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("until", [SENTENCE, ANSWER])
@pytest.mark.parametrize("text", ["一只狗在跑", "A dog 🐶🐶", "👩\u200d🚀 floats", "Één hond"])
def test_a_limit_inside_a_character_drops_its_tokens(name: str, text: str, until: str) -> None:
    tok = TOKENIZERS[name]
    ids = tok(text, add_special_tokens=False).input_ids
    for limit in range(1, len(ids)):
        completion = decoded(tok, ids, until=until, limit=limit)
        assert completion.drawn == limit and not completion.ended
        assert "\ufffd" not in completion.text and not completion.text.endswith("\u200d")
        assert tok.decode(list(completion.tokens)).strip() == completion.text
        assert text.startswith(completion.text)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", [*TEXTS, "One.\n\nTwo.\nThree.  Four."])
def test_joined_sentences_are_the_decoded_text(name: str, text: str) -> None:
    tok = TOKENIZERS[name]
    ids = tok(text, add_special_tokens=False).input_ids
    result, before = SearchResult(), ()
    while len(before) < len(ids):
        row = decoded(tok, [*ids[len(before) :], tok.eos_token_id], before=before)
        result.add(Candidate(row.text, 0.0, row.ended, row.drawn, None, row.space))
        before += row.tokens
    assert result.text == text == tok.decode(list(before)).strip()
    whole = decoded(tok, [*ids, tok.eos_token_id], until=ANSWER)
    parts = sentences_of(
        Candidate(whole.text, 0.0, True, 1, whole.span), lambda some: tok.decode(list(some[: len(ids)]))
    )
    assert joined([part.text for part in parts], [part.space for part in parts]) == text


def test_sentences_without_known_white_space_are_joined_by_blanks() -> None:
    assert SearchResult(sentences=["A dog.", "A cat."]).text == "A dog. A cat."
    assert joined(["A.", "B.", "C."], ["x", "\n"]) == "xA.\nB. C."
