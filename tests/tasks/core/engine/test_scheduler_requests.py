"""Requests of a search: replies, forced texts and split answers continue like drawn text; other requests are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.search.contract import SearchResult
from tasks.core.search.requests import ANSWER, Candidate, ask, force, propose, score, split_answer, value


def scheduler_of(policy, in_flight: int = 8) -> SearchScheduler:
    return SearchScheduler(Decoder(policy), in_flight=in_flight, top_p=0.9)


def run(scheduler: SearchScheduler, picture, prompt: str, search: Callable[[], Iterator[Any]]) -> SearchResult:
    """The result of one search."""
    ((_, result),) = scheduler.run([Job(0, lambda: picture, prompt, search(), ("alone",))])
    return result


def answer_of(candidates: list[Candidate]) -> SearchResult:
    result = SearchResult([candidate.text for candidate in candidates])
    result.record(0, candidates, {}, None)
    return result.finish("end")


def test_a_reply_is_the_answer_to_a_prompt_of_its_own(policy, pictures, prompts) -> None:
    def ask_aside(question: str) -> Iterator[Any]:
        candidates = yield from propose(None, [0.7], max_tokens=20)
        return SearchResult([(yield from ask(question, max_tokens=30)), candidates[0].text])

    for question in (prompts[3], "Go.", "Which one?\n\nThe first: a dog."):
        scheduler = scheduler_of(policy)
        result = run(scheduler, pictures[0], prompts[0], lambda question=question: ask_aside(question))
        assert scheduler.decoder.counters["vision_encodes"] == 1, "the image was encoded again"
        alone = run(scheduler_of(policy), pictures[0], question, lambda: ask_aside("Go."))
        fresh = run(scheduler_of(policy), pictures[0], question, greedy)
        assert result.sentences[0] == fresh.sentences[0]
        assert alone.sentences[1] != ""
        slow = run(SearchScheduler(GenerateDecoder(policy, "asked for"), in_flight=1, top_p=0.9), pictures[0], prompts[0],
                   lambda question=question: ask_aside(question))  # fmt: skip
        assert slow.sentences == result.sentences


def greedy() -> Iterator[Any]:
    return answer_of((yield from propose(None, [0.0], max_tokens=30, until=ANSWER)))


def test_a_template_that_puts_the_text_first_is_read_anew(policy, pictures, prompts, monkeypatch) -> None:
    from tasks.core.engine.prompts import Prompts

    def ask_aside() -> Iterator[Any]:
        yield from propose(None, [0.7], max_tokens=20)
        return SearchResult([(yield from ask(prompts[3], max_tokens=30))])

    expected = run(scheduler_of(policy), pictures[0], prompts[0], ask_aside)
    monkeypatch.setattr(Prompts, "image_prefix", lambda *_: None)
    scheduler = scheduler_of(policy)
    assert run(scheduler, pictures[0], prompts[0], ask_aside).sentences == expected.sentences
    assert scheduler.decoder.counters["vision_encodes"] == 2


@pytest.mark.parametrize("at", [0, 1])
def test_a_forced_text_is_continued_as_if_it_had_been_drawn(policy, pictures, prompts, at: int) -> None:
    def goes_on(forced: bool) -> Iterator[Any]:
        after: Candidate | None = None
        for _ in range(at + 1):
            before, (after,) = after, (yield from propose(after, [0.0], max_tokens=30))
        if forced:
            after = yield from force(before, after.text)
            assert (after.drawn, after.ended) == (0, False)
        return answer_of((yield from propose(after, [0.9, 1.2], max_tokens=30)))

    results = [run(scheduler_of(policy), pictures[1], prompts[1], partial(goes_on, forced)) for forced in (False, True)]
    assert results[0].trace == results[1].trace
    assert results[0].text


def test_a_sentence_of_a_split_answer_is_continued_as_the_sentence_itself(policy, pictures, prompts) -> None:
    def goes_on(whole: bool) -> Iterator[Any]:
        (answer,) = yield from propose(None, [0.0], max_tokens=60, until=ANSWER)
        sentences = yield from split_answer(answer)
        assert " ".join(sentence.text for sentence in sentences) == answer.text and len(sentences) > 2
        after = sentences[1]
        if not whole:
            (after,) = yield from propose(None, [0.0], max_tokens=60)
            (after,) = yield from propose(after, [0.0], max_tokens=60)
            assert after.text == sentences[1].text
            yield from propose(after, [0.5], max_tokens=2)
        else:
            yield from propose(None, [0.5], max_tokens=2)
            yield from propose(None, [0.5], max_tokens=2)
            yield from propose(None, [0.5], max_tokens=2)
        return answer_of((yield from propose(after, [0.0, 0.9, 1.2], max_tokens=30)))

    results = [run(scheduler_of(policy), pictures[2], prompts[2], partial(goes_on, whole)) for whole in (False, True)]
    assert results[0].trace == results[1].trace


# What can't be served


def fails(search: Callable[[], Iterator[Any]], error: type[Exception], match: str, policy, picture) -> None:
    with pytest.raises(error, match=match):
        run(scheduler_of(policy), picture, "Go.", search)


def test_errors_of_requests_without_a_guide_name_what_is_missing(policy, pictures) -> None:
    fails(lambda: score(["A dog."]), ValueError, "asked for scores and there is no scorer", policy, pictures[0])
    item = ("", Candidate("A dog.", 0.0, ended=False, drawn=1))
    fails(lambda: value([item]), ValueError, "asked for values and there is no value model", policy, pictures[0])


def test_what_is_no_request_of_the_contract_is_named(policy, pictures) -> None:
    def strange() -> Iterator[Any]:
        yield "a sentence, please"

    fails(strange, TypeError, "asked for a str: want one of the contract's requests", policy, pictures[0])


def test_a_candidate_that_was_not_kept_can_not_be_continued(policy, pictures) -> None:
    def without_keep() -> Iterator[Any]:
        (dropped,) = yield from propose(None, [0.0], max_tokens=20, keep=False)
        yield from propose(dropped, [0.0], max_tokens=20)

    fails(
        without_keep, ValueError, "was not kept: propose a candidate with keep to continue from it", policy, pictures[0]
    )


def test_continuations_at_no_temperature_are_refused(policy, pictures) -> None:
    fails(lambda: propose(None, [], max_tokens=5), ValueError, "at no temperature", policy, pictures[0])


def test_no_image_at_once_is_refused(policy) -> None:
    with pytest.raises(ValueError, match="in_flight is 0"):
        scheduler_of(policy, in_flight=0)
