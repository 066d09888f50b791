"""Where a continuation ends and what of it is kept, token by token; the temperatures of candidates."""

from __future__ import annotations

import pytest

from tasks.core.engine.rows import Completion, Draw, Row, TokenTexts, sentences_of
from tasks.core.search.requests import ANSWER, SENTENCE, Candidate
from tasks.core.search.temperatures import spread_temperatures
from tasks.core.seeds import uniforms

GREEDY = Draw(0.0, 1.0, ())


def completed(policy, text: str, limit: int = 60, until: str = SENTENCE) -> Completion:
    """The completion of a policy that decodes `text` and never stops; a "|" ends the answer."""
    token_texts = TokenTexts(policy)
    (end,) = policy.end_ids
    ids = policy.tokenizer(text.removesuffix("|"), add_special_tokens=False).input_ids
    row = Row(None, GREEDY, until, limit)
    for token in [*ids, end] if text.endswith("|") else ids:
        if row.take(token, token_texts):
            return row.completion(None)
    raise AssertionError(f"not over after {text!r}")


@pytest.mark.parametrize(
    ("text", "expected", "ended"),
    [
        ("There is a dog. There is a cat.|", "There is a dog.", False),
        ("It is 3.5 m wide. A dog.|", "It is 3.5 m wide.", False),
        ("Mr. Smith has a dog. A cat.|", "Mr. Smith has a dog.", False),
        ("Is it a dog? Yes.|", "Is it a dog?", False),
        ("There is a dog.|", "There is a dog.", True),
        ("|", "", True),
        ("A dog. A|", "A dog.", False),
    ],
)
def test_ends_are_sentences_ends_not_full_stops(policy, text: str, expected: str, ended: bool) -> None:
    completion = completed(policy, text)
    assert (completion.text, completion.ended) == (expected, ended)
    assert policy.tokenizer.decode(list(completion.tokens)).strip() == expected, "surplus tokens were kept"
    assert (completion.tokens == ()) == (expected == "")
    assert completion.drawn > len(completion.tokens), "no token of look-ahead, and no end"


def test_at_the_limit_a_sentence_is_what_there_is(policy) -> None:
    long, whole = (
        completed(policy, "There is a dog and a cat and", 7),
        completed(policy, "There is a dog. There is a", 7),
    )
    assert (long.text, long.ended, long.drawn) == ("There is a dog and a cat", False, 7)
    assert (whole.text, whole.ended) == ("There is a dog.", False)


def test_at_the_limit_a_whole_answer_has_not_ended(policy) -> None:
    long, short = completed(policy, "There is a dog. A cat", 5, ANSWER), completed(policy, "A dog.|", 5, ANSWER)
    assert (long.text, long.ended, len(long.tokens)) == ("There is a dog.", False, 5)
    assert (short.text, short.ended, short.drawn) == ("A dog.", True, 4)


def test_a_given_text_ends_a_stage_as_soon_as_it_is_there(policy) -> None:
    completion = completed(policy, "There is a dog. It is a cat and a", until="It is a")
    assert (completion.text, completion.ended) == ("There is a dog. It is a", False)
    assert completion.drawn == len(completion.tokens), "a token was drawn after the end"


def test_without_the_text_that_ends_it_a_stage_ends_with_the_answer_or_at_the_limit(policy) -> None:
    completion = completed(policy, "There is a dog.|", until="</SUMMARY>")
    assert (completion.text, completion.ended) == ("There is a dog.", True)
    completion = completed(policy, "There is a dog. A cat.", 5, until="</SUMMARY>")
    assert (completion.text, completion.ended, completion.drawn) == ("There is a dog.", False, 5)


def test_a_row_draws_from_its_seed_however_long_it_gets(policy) -> None:
    row, token_texts = Row(None, Draw(0.7, 0.9, ("a", 1)), ANSWER, 150), TokenTexts(policy)
    token = policy.tokenizer(" a", add_special_tokens=False).input_ids[-1]
    drawn = []
    for _ in range(150):
        drawn.append(row.uniform())
        row.take(token, token_texts)
    assert drawn == uniforms(150, "a", 1).tolist()
    again = row.restarted()
    assert (again.uniform(), again.tokens, again.cut) == (drawn[0], [], None)


def test_an_answer_without_its_tokens_can_not_be_split() -> None:
    with pytest.raises(ValueError, match="propose it with keep"):
        sentences_of(Candidate("A dog.", 0.0, ended=True, drawn=3), str)


def test_one_candidate_is_greedy_and_the_others_are_dealt_over_the_temperatures() -> None:
    temperatures = (0.1, 0.3, 0.5, 0.7, 0.9)
    assert spread_temperatures(1, temperatures) == (0.0,)
    assert spread_temperatures(6, temperatures) == (0.0, *temperatures)
    assert spread_temperatures(8, temperatures) == (0.0, *temperatures, 0.1, 0.3)
    for count in (2, 3, 4, 5):
        some = spread_temperatures(count, temperatures)
        assert len(set(some)) == len(some) == count
        assert some[-1] == 0.9


def test_without_a_greedy_candidate_all_are_dealt_over_the_temperatures() -> None:
    temperatures = (0.1, 0.3, 0.5, 0.7, 0.9)
    assert spread_temperatures(5, temperatures, greedy=False) == temperatures
    assert spread_temperatures(6, temperatures, greedy=False) == (*temperatures, 0.1)
    assert spread_temperatures(1, temperatures, greedy=False) == (0.9,)
    assert 0.0 not in spread_temperatures(3, temperatures, greedy=False)
