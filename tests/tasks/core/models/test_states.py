"""The state at a sentence's end is that of the text so far, whatever stands beside it or comes after it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from tasks.core.models.policy import user_turn
from tasks.core.models.states import sentence_ends, sentence_states
from tasks.core.text import split_sentences
from tests.support.tiny_models import ARCHITECTURES, tiny

ANSWERS = [
    "There is a dog. I can see a cup here. There is a cat.",
    "A pizza.",
    "There is a dining table. There is a dog.",
    "I can see a cup here. There is a pizza",  # cut by a token limit
]


def turns(pictures, prompts, count: int) -> list[tuple[Image.Image, str]]:
    return list(zip(pictures[:count], prompts[:count], strict=True))


@pytest.fixture(scope="module")
def states(policy, pictures, prompts) -> list[torch.Tensor]:
    return sentence_states(policy, turns(pictures, prompts, 4), ANSWERS, layer=-1, batch_size=4)


def ids_of(policy, text: str) -> list[int]:
    return policy.tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def state_after(policy, picture, prompt: str, ids: list[int], layer: int) -> torch.Tensor:
    """The last token's state in a plain forward of one prompt and the tokens so far."""
    inputs = policy.inputs([picture], [prompt])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return policy.model.model(**inputs, output_hidden_states=True).hidden_states[layer][0, -1]


@pytest.mark.parametrize("layer", [-1, -2])
def test_a_state_is_that_of_a_forward_which_ends_there(policy, pictures, prompts, layer: int) -> None:
    result = sentence_states(policy, turns(pictures, prompts, 4), ANSWERS, layer=layer, batch_size=3)
    for picture, prompt, answer, of_answer in zip(pictures, prompts, ANSWERS, result, strict=False):
        sentences = split_sentences(answer)
        assert of_answer.shape == (len(sentences), policy.model.config.get_text_config().hidden_size)
        for sentence, state in zip(sentences, of_answer, strict=True):
            alone = state_after(policy, picture, prompt, ids_of(policy, answer[: sentence.end]), layer)
            assert torch.allclose(state, alone, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_reads_as_if_it_were_given_the_whole_text(architecture: str, pictures, prompts) -> None:
    own = tiny(architecture)
    answers = ["There is a dog. It sits by it.", "A man waits!", "Two cats lie on the left. Who knows? Yes!"]
    result = sentence_states(own, turns(pictures, prompts, 3), answers, layer=-1, batch_size=3)
    for picture, prompt, answer, of_answer in zip(pictures, prompts, answers, result, strict=False):
        (text,) = own.processor.apply_chat_template([[user_turn(picture, prompt)]], add_generation_prompt=True)
        for sentence, state in zip(split_sentences(answer), of_answer, strict=True):
            whole = [text + own.chat.answered_turn.before + answer[: sentence.end]]
            inputs = own.processor(text=whole, images=[[picture]], return_tensors="pt", add_special_tokens=False)
            with torch.inference_mode():  # the model finds its positions itself
                alone = own.model.model(**inputs).last_hidden_state[0, -1]
            assert torch.allclose(state, alone, atol=1e-4)


def test_the_last_layer_is_what_the_language_head_reads(policy, pictures, prompts, states) -> None:
    inputs = policy.inputs(pictures[:1], prompts[:1])
    ids = torch.tensor([ids_of(policy, ANSWERS[0])])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        logits = policy.model(**inputs).logits[0, -1]
        assert torch.allclose(policy.model.lm_head(states[0][-1]), logits, atol=1e-4)


def test_states_do_not_depend_on_the_batch(policy, pictures, prompts, states) -> None:
    alone = sentence_states(policy, turns(pictures, prompts, 4), ANSWERS, layer=-1, batch_size=1)
    assert [len(item) for item in alone] == [3, 1, 2, 2]
    for entry, other in zip(alone, states, strict=True):
        assert entry.dtype == torch.float32
        assert torch.allclose(entry, other, atol=1e-4)


def test_a_sentence_that_differs_by_a_word_ends_in_another_state(policy, pictures, prompts, states) -> None:
    changed = [ANSWERS[0].replace("cup", "dog")]
    (other,) = sentence_states(policy, turns(pictures, prompts, 1), changed, layer=-1, batch_size=1)
    assert torch.allclose(other[0], states[0][0], atol=1e-4), "what came before stays as it was"
    assert not torch.allclose(other[1], states[0][1], atol=1e-2)


def test_token_ids_are_read_as_they_are(policy, pictures, prompts, states) -> None:
    ids = [ids_of(policy, answer) for answer in ANSWERS]
    result = sentence_states(policy, turns(pictures, prompts, 4), ids, layer=-1, batch_size=4)
    assert all(torch.equal(item, other) for item, other in zip(result, states, strict=True))


def test_an_empty_answer_has_no_state(policy, pictures, prompts) -> None:
    result = sentence_states(policy, turns(pictures, prompts, 2), ["", ANSWERS[1]], layer=-1, batch_size=2)
    assert [item.shape[0] for item in result] == [0, 1]
    assert sentence_states(policy, turns(pictures, prompts, 1), [[]], layer=-1, batch_size=1)[0].shape[0] == 0
    assert sentence_states(policy, [], [], layer=-1, batch_size=2) == []


def test_what_was_read_is_counted(policy, pictures, prompts) -> None:
    seen: list[tuple[int, int]] = []
    sentence_states(
        policy, turns(pictures, prompts, 3), ANSWERS[:3], layer=-1, batch_size=2, after_batch=lambda *n: seen.append(n)
    )
    assert [answers for answers, _ in seen] == [2, 1]
    read = int(policy.inputs(pictures[:3], prompts[:3])["attention_mask"].sum())
    assert sum(tokens for _, tokens in seen) == read + sum(len(ids_of(policy, answer)) for answer in ANSWERS[:3])


class _Letters:
    """A tokenizer of single characters, that puts a blank before a text as SentencePiece may."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return " " + "".join(map(chr, tokens))


class _Reader:
    tokenizer = _Letters()


def test_an_end_is_the_fewest_tokens_that_hold_the_sentence() -> None:
    text = "A 3.5 m wall.  Two cats!\n\nMr. Who sits"
    ends = sentence_ends(_Reader(), [ord(letter) for letter in text], text)  # type: ignore[arg-type]
    assert [text[:end] for end in ends] == [text[: sentence.end] for sentence in split_sentences(text)]
    assert ends == sentence_ends(_Reader(), [ord(letter) for letter in text])  # type: ignore[arg-type]
