"""What a search asks for, served: replies, given texts and split answers go on as what was said does; the rest is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.scheduler import Desk, Job
from tasks.core.search.contract import (
    ANSWER,
    Candidate,
    Found,
    reply,
    say,
    score,
    split,
    value,
    write,
)  # fmt: skip


def desk_of(policy, in_flight: int = 8) -> Desk:
    return Desk(Decoder(policy), in_flight=in_flight, top_p=0.9)


def run(desk: Desk, picture, prompt: str, search: Callable[[], Iterator[Any]]) -> Found:
    """What one search finds."""
    ((_, found),) = desk.run([Job(0, lambda: picture, prompt, search(), ("alone",))])
    return found


def answer_of(candidates: list[Candidate]) -> Found:
    found = Found([one.text for one in candidates])
    found.note(0, candidates, {}, None)
    return found.stop("end")


def test_a_reply_is_the_answer_to_a_prompt_of_its_own(policy, pictures, prompts) -> None:
    def asks(question: str) -> Iterator[Any]:
        said = yield from say(None, [0.7], max_tokens=20)
        return Found([(yield from reply(question, max_tokens=30)), said[0].text])

    for question in (prompts[3], "Go.", "Which one?\n\nThe first: a dog."):
        desk = desk_of(policy)
        found = run(desk, pictures[0], prompts[0], lambda question=question: asks(question))
        assert desk.decoder.counters["vision_encodes"] == 1, "the image was encoded again"
        alone = run(desk_of(policy), pictures[0], question, lambda: asks("Go."))
        fresh = run(desk_of(policy), pictures[0], question, greedy)
        assert found.sentences[0] == fresh.sentences[0]
        assert alone.sentences[1] != ""
        slow = run(Desk(GenerateDecoder(policy, "asked for"), in_flight=1, top_p=0.9), pictures[0], prompts[0],
                   lambda question=question: asks(question))  # fmt: skip
        assert slow.sentences == found.sentences


def greedy() -> Iterator[Any]:
    return answer_of((yield from say(None, [0.0], max_tokens=30, until=ANSWER)))


def test_a_template_that_puts_the_text_first_is_read_anew(policy, pictures, prompts, monkeypatch) -> None:
    from tasks.core.engine.prompts import Prompts

    def asks() -> Iterator[Any]:
        yield from say(None, [0.7], max_tokens=20)
        return Found([(yield from reply(prompts[3], max_tokens=30))])

    expected = run(desk_of(policy), pictures[0], prompts[0], asks)
    monkeypatch.setattr(Prompts, "image_place", lambda *_: None)
    desk = desk_of(policy)
    assert run(desk, pictures[0], prompts[0], asks).sentences == expected.sentences
    assert desk.decoder.counters["vision_encodes"] == 2


@pytest.mark.parametrize("at", [0, 1])
def test_what_is_written_is_gone_on_from_as_if_it_had_been_said(policy, pictures, prompts, at: int) -> None:
    def goes_on(written: bool) -> Iterator[Any]:
        after: Candidate | None = None
        for _ in range(at + 1):
            before, (after,) = after, (yield from say(after, [0.0], max_tokens=30))
        if written:
            after = yield from write(before, after.text)
            assert (after.drawn, after.ended) == (0, False)
        return answer_of((yield from say(after, [0.9, 1.2], max_tokens=30)))

    found = [run(desk_of(policy), pictures[1], prompts[1], partial(goes_on, written)) for written in (False, True)]
    assert found[0].trace == found[1].trace
    assert found[0].text


def test_from_a_sentence_of_a_split_answer_it_goes_on_as_from_the_sentence_itself(policy, pictures, prompts) -> None:
    def goes_on(whole: bool) -> Iterator[Any]:
        (answer,) = yield from say(None, [0.0], max_tokens=60, until=ANSWER)
        sentences = yield from split(answer)
        assert " ".join(one.text for one in sentences) == answer.text and len(sentences) > 2
        after = sentences[1]
        if not whole:
            (after,) = yield from say(None, [0.0], max_tokens=60)
            (after,) = yield from say(after, [0.0], max_tokens=60)
            assert after.text == sentences[1].text
            yield from say(after, [0.5], max_tokens=2)
        else:
            yield from say(None, [0.5], max_tokens=2)
            yield from say(None, [0.5], max_tokens=2)
            yield from say(None, [0.5], max_tokens=2)
        return answer_of((yield from say(after, [0.0, 0.9, 1.2], max_tokens=30)))

    found = [run(desk_of(policy), pictures[2], prompts[2], partial(goes_on, whole)) for whole in (False, True)]
    assert found[0].trace == found[1].trace


# What can't be served


def fails(search: Callable[[], Iterator[Any]], error: type[Exception], match: str, policy, picture) -> None:
    with pytest.raises(error, match=match):
        run(desk_of(policy), picture, "Go.", search)


def test_requests_without_a_guide_say_what_is_missing(policy, pictures) -> None:
    fails(lambda: score(["A dog."]), ValueError, "asked for scores and there is no scorer", policy, pictures[0])
    item = ("", Candidate("A dog.", 0.0, ended=False, drawn=1))
    fails(lambda: value([item]), ValueError, "asked for values and there is no value model", policy, pictures[0])


def test_what_is_no_request_of_the_contract_is_named(policy, pictures) -> None:
    def strange() -> Iterator[Any]:
        yield "a sentence, please"

    fails(strange, TypeError, "asked for a str: want one of the contract's requests", policy, pictures[0])


def test_what_was_not_kept_can_not_be_gone_on_from(policy, pictures) -> None:
    def forgetful() -> Iterator[Any]:
        (one,) = yield from say(None, [0.0], max_tokens=20, keep=False)
        yield from say(one, [0.0], max_tokens=20)

    fails(forgetful, ValueError, "was not kept: a candidate to go on from is said with keep", policy, pictures[0])


def test_continuations_at_no_temperature_are_refused(policy, pictures) -> None:
    fails(lambda: say(None, [], max_tokens=5), ValueError, "at no temperature", policy, pictures[0])


def test_no_image_at_once_is_refused(policy) -> None:
    with pytest.raises(ValueError, match="in_flight is 0"):
        desk_of(policy, in_flight=0)
