"""Tokenizers of whole words, and the sizes that the tiny models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from tasks.core.models import policy as _policy  # declares torchvision's operators, which transformers needs
from tests.support.demo_models import PROMPTS

import transformers as hf  # isort: skip

assert _policy

TILE, PATCH = 28, 14  # pixels
GRID = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]  # (height, width) of a tiled image
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>"
SPACE, LINE_BREAK = "Ġ", "Ċ"  # as byte-level tokenizers write them
MARKS = (".", "!", "?", ",", ";", ":", "\n")
WORDS = [
    "There is a dog on the left and two cats lie by it . It sits near an old red car ! Is one bird here ?",
    "A man walks to his house with some bread . The sky has no cloud , but trees are green . She looks up ; he waits :",
    "Two boys play . In front stands Mr. No Dr. knows 3 or 1 . We see many more . They run ! Who ? Yes ! No .",
]
ROLES = "user assistant system model User Assistant System Human USER ASSISTANT SYSTEM You are a helpful"


class Parts(NamedTuple):
    """What a tiny policy is made of."""

    config: Any
    processor: Any
    ends: tuple[str, ...] = (EOS,)  # tokens that end an answer; the generation config lists their ids
    seed: int = 7  # of the weights: one whose greedy answers differ and end now and then


def _words() -> list[str]:
    prompts = [word for prompt in PROMPTS for word in prompt.rstrip(".?").split()]
    return [word.rstrip(".") for word in [*" ".join(WORDS).split(), *prompts] if word not in MARKS]


def said_tokens() -> set[str]:
    """Tokens that an answer may be made of: marks, and words with the space before them."""
    words = [*_words(), *ROLES.split()]
    return {
        *MARKS,
        LINE_BREAK,
        *(f"▁{word}" for word in words),
        *(f"{SPACE}{word}" for word in words if not word.isdigit()),
    }


def _built(vocabulary: Mapping[str, Any], special: Sequence[str], plain: Sequence[str] = ()) -> Tokenizer:
    built = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex("[.!?,;:\n]"), "isolated")]
    )
    built.decoder = decoders.Metaspace()
    built.add_special_tokens(list(special))
    built.add_tokens(list(plain))
    return built


def tokenizer(image: str, *others: str) -> hf.PreTrainedTokenizerFast:
    """Whole words, each with the space before it; `image` has the last id, as Mllama wants it."""
    special, markers = [PAD, BOS, EOS, UNKNOWN], [USER, ASSISTANT, *others, image]
    words = [f"▁{word}" for word in _words()]
    vocabulary = dict.fromkeys([*special, *MARKS, "▁", *words, *markers])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=_built(vocabulary, [*special, *markers]),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": image},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def chat_tokenizer(
    named: Mapping[str, str],
    *others: str,
    bos: str | None = None,
    eos: str = EOS,
    pad: str = PAD,
    adds_bos: bool = False,
    plain: Sequence[str] = (),
) -> hf.PreTrainedTokenizerFast:
    """Whole words and the names of roles, also without a space before them, as they stand after a line break.

    Args:
        named: special tokens that the processor looks up by attribute, such as image_token.
        others: more special tokens.
        bos: the token that begins a text; None where the family has none.
        eos: the tokenizer's own end token.
        pad: what fills short rows; may be the end token, as it is in many checkpoints.
        adds_bos: the tokenizer writes `bos` itself, as LLaVA-1.5's and Gemma's do, whatever the template does.
        plain: added tokens that are not special (Qwen's <think>).
    """
    special = list(dict.fromkeys([pad, *([bos] if bos else []), eos, UNKNOWN, *others, *named.values()]))
    words = [*_words(), *ROLES.split()]
    vocabulary = dict.fromkeys([*special, *MARKS, "▁", *(f"▁{word}" for word in words), *words, *plain])
    built = _built(vocabulary, special, plain)
    if bos and adds_bos:
        built.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, list(vocabulary).index(bos))]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=UNKNOWN,
        extra_special_tokens=dict(named),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def byte_tokenizer(
    family: Callable[..., Any], named: Mapping[str, str], *others: str, eos: str, pad: str, plain: Sequence[str] = ()
) -> Any:
    """Byte-level pairs: whole words are one token, any other text (Chinese, emoji) a token a byte; no first token.

    `family` is a class of Qwen's tokenizers, which has its own splitting of texts; the rest is as in `chat_tokenizer`.
    """
    vocabulary = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    merges: dict[tuple[str, str], None] = {}
    words = [*_words(), *ROLES.split()]
    for word in [*words, *(f"{SPACE}{word}" for word in words)]:
        for end in range(1, len(word)):
            vocabulary[word[: end + 1]] = merges[word[:end], word[end]] = None
    tok = family(
        vocab={token: i for i, token in enumerate(vocabulary)},
        merges=list(merges),
        unk_token=pad,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=dict(named),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tok.add_tokens([AddedToken(token, special=True) for token in (*others, *named.values())])
    tok.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tok


def text_sizes(tok: hf.PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """The language model's part of a configuration."""
    ids = {name: getattr(tok, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {**TEXT, "vocab_size": len(tok), **ids, **more}
