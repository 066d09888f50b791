"""The chat client against a server on this machine: what it sends, when it asks again, and where the key never gets."""

from __future__ import annotations

import base64
import io
import logging
import time

import numpy as np
import pytest
from PIL import Image

from tasks.models.endpoint import ATTEMPTS, Endpoint, EndpointError, Unanswered, image_message
from tests.support.chat_server import chat_server, saying

SAY = [{"role": "user", "content": "Hello"}]


def endpoint(url: str, **options: object) -> Endpoint:
    return Endpoint(url, "m", "TEST_KEY", pause=0.001, **options)


def test_a_conversation_is_sent_with_model_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    with chat_server(lambda body, before: saying("Good day")) as asked:
        assert endpoint(asked.url + "/").chat(SAY, max_tokens=5, seed=3) == "Good day"
        assert endpoint(asked.url).ask(*SAY) == "Good day"
    assert asked.bodies[0] == {"model": "m", "messages": SAY, "temperature": 0.0, "max_tokens": 5, "seed": 3}
    assert asked.bodies[1] == {"model": "m", "messages": SAY, "temperature": 0.0}
    assert asked.paths == ["/v1/chat/completions"] * 2
    assert asked.headers[0]["Authorization"] == "Bearer sk-secret"


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with chat_server(lambda body, before: saying("x")) as asked:
        endpoint(asked.url).chat(SAY, temperature=None)
    assert "Authorization" not in asked.headers[0] and "temperature" not in asked.bodies[0]


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_busy_endpoint_is_asked_again(status: int) -> None:
    with chat_server(lambda body, before: (status, {}, "busy") if before < 2 else saying("now")) as asked:
        assert endpoint(asked.url).chat(SAY) == "now"
    assert len(asked.bodies) == 3


def test_it_waits_as_long_as_the_endpoint_asks_for() -> None:
    with chat_server(lambda body, before: saying("now") if before else (429, {"Retry-After": "0.3"}, "")) as asked:
        began = time.perf_counter()
        endpoint(asked.url).chat(SAY)
    assert time.perf_counter() - began > 0.3


def test_one_that_stays_busy_is_given_up_with_its_own_words() -> None:
    gave_up = pytest.raises(EndpointError, match=rf"in {ATTEMPTS} attempts: 503 model is loading")
    with chat_server(lambda body, before: (503, {}, "model is loading")) as asked, gave_up as raised:
        endpoint(asked.url).chat(SAY)
    assert len(asked.bodies) == ATTEMPTS and not isinstance(raised.value, Unanswered)


def test_one_that_is_not_there_says_so() -> None:
    with chat_server(lambda body, before: saying("x")) as asked:
        url = asked.url
    with pytest.raises(EndpointError, match="ConnectError; is it up, and is the URL right"):
        endpoint(url).chat(SAY)


@pytest.mark.parametrize(("status", "one"), [(400, True), (422, True), (401, False), (404, False)])
def test_a_refusal_is_not_asked_again(status: int, one: bool) -> None:
    refused = pytest.raises(EndpointError, match=f"refused a request to model m: {status}")
    with chat_server(lambda body, before: (status, {}, "no such thing")) as asked, refused as raised:
        endpoint(asked.url).chat(SAY)
    assert len(asked.bodies) == 1 and isinstance(raised.value, Unanswered) == one


@pytest.mark.parametrize("status", [401, 400, 503])
def test_the_key_is_in_no_error_and_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    caplog.set_level(logging.DEBUG)
    with chat_server(lambda body, before: (status, {}, "wrong key sk-secret given")) as asked:
        one = endpoint(asked.url)
        with pytest.raises(EndpointError) as raised:
            one.chat(SAY)
    said = f"{raised.value} {raised.value.__cause__} {raised.value.__context__} {vars(one)} {caplog.text}"
    assert "sk-secret" not in said and asked.headers[0]["Authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize("body", ["<html>", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', "[]"])
def test_another_kind_of_service_is_recognised(body: str) -> None:
    strange = pytest.raises(EndpointError, match="none of an OpenAI-compatible chat endpoint")
    with chat_server(lambda *_: (200, {}, body)) as asked, strange:
        endpoint(asked.url).chat(SAY)


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_an_answer_without_text_is_none(text: str | None) -> None:
    with chat_server(lambda *_: saying(text)) as asked, pytest.raises(Unanswered, match="answered without text"):
        endpoint(asked.url).chat(SAY)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match=r"want http\(s\)://HOST"):
        Endpoint(url, "m")


@pytest.mark.parametrize("url", ["https://me:sk-secret@host/v1", "https://host/v1?key=sk-secret"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(EndpointError, match="environment variable OPENAI_API_KEY") as raised:
        Endpoint(url, "m")
    assert "sk-secret" not in str(raised.value)


def test_many_are_asked_at_once_but_not_more_than_allowed_and_answers_keep_their_order() -> None:
    def slowly(body: dict, before: int) -> tuple:
        time.sleep(0.02 * (3 - before % 3))
        text = body["messages"][0]["content"]
        return (400, {}, "refused") if text == "5" else saying(f"to {text}")

    with chat_server(slowly) as asked:
        chats = [[{"role": "user", "content": str(i)}] for i in range(12)]
        answers = list(endpoint(asked.url, parallel=3).chat_each(chats))
    assert isinstance(answers.pop(5), Unanswered)
    assert answers == [f"to {i}" for i in range(12) if i != 5]
    assert 1 < asked.at_once <= 3


def test_an_image_is_sent_as_a_data_url() -> None:
    pixels = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], (16, 1, 3))
    image_part, text_part = image_message(Image.fromarray(pixels), "What is it?")["content"]
    assert text_part == {"type": "text", "text": "What is it?"}
    head, data = image_part["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert sent.shape == (16, 32, 3) and np.abs(sent.astype(int) - pixels).max() < 12


def test_questions_about_images_are_answered_in_order_and_none_where_refused() -> None:
    def answer(body: dict, before: int) -> tuple:
        text = body["messages"][0]["content"][1]["text"]
        return (400, {}, "") if text == "b" else saying(text.upper())

    images = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    with chat_server(answer) as asked:
        got = list(endpoint(asked.url).answers([(images[0], "a"), (images[1], "b"), (images[0], "c")]))
    assert got == ["A", None, "C"]
    urls = {
        b["messages"][0]["content"][1]["text"]: b["messages"][0]["content"][0]["image_url"]["url"] for b in asked.bodies
    }
    assert urls["a"] == urls["c"] != urls["b"]
    with chat_server(lambda *_: (401, {}, "")) as asked, pytest.raises(EndpointError, match="check the key"):
        list(endpoint(asked.url).answers([(images[0], "a")]))
