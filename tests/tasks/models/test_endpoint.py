"""The chat client against a server on this machine: what it sends, when it sends again, and where the key never appears."""

from __future__ import annotations

import base64
import io
import logging
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tasks.models.endpoint import ATTEMPTS, Endpoint, EndpointError, Unanswered, image_message
from tests.support.chat_server import answering, chat_server

HELLO = [{"role": "user", "content": "Hello"}]
AT_ONCE = {"Retry-After-Ms": "1"}  # milliseconds until the next attempt


def endpoint(url: str, **options: object) -> Endpoint:
    return Endpoint(url, "m", "TEST_KEY", **options)


def test_a_conversation_is_sent_with_model_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-user")
    with chat_server(lambda body, before: answering("Good day")) as requests:
        assert endpoint(requests.url + "/").chat(HELLO, max_tokens=5, seed=3) == "Good day"
        assert endpoint(requests.url).chat(HELLO) == "Good day"
    assert requests.bodies[0] == {"model": "m", "messages": HELLO, "temperature": 0.0, "max_tokens": 5, "seed": 3}
    assert requests.bodies[1] == {"model": "m", "messages": HELLO, "temperature": 0.0}
    assert requests.paths == ["/v1/chat/completions"] * 2
    assert requests.headers[0]["Authorization"] == "Bearer sk-secret"
    about_us = {"openai-organization", "openai-project", "x-stainless-os", "x-stainless-arch", "x-stainless-runtime"}
    assert not about_us & {name.lower() for name in requests.headers[0]}


def test_without_a_key_of_that_name_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    with chat_server(lambda body, before: answering("x")) as requests:
        endpoint(requests.url).chat(HELLO, temperature=None)
    assert "Authorization" not in requests.headers[0] and "temperature" not in requests.bodies[0]


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_request_to_a_busy_endpoint_is_sent_again(status: int) -> None:
    with chat_server(lambda body, before: (status, AT_ONCE, "busy") if before < 2 else answering("now")) as requests:
        assert endpoint(requests.url).chat(HELLO) == "now"
    assert len(requests.bodies) == 3


def test_retry_after_is_honoured() -> None:
    with chat_server(
        lambda body, before: answering("now") if before else (429, {"Retry-After": "0.3"}, "")
    ) as requests:
        began = time.perf_counter()
        endpoint(requests.url).chat(HELLO)
    assert time.perf_counter() - began > 0.3


def test_an_endpoint_that_stays_busy_is_given_up_and_quoted() -> None:
    gave_up = pytest.raises(EndpointError, match=rf"in at most {ATTEMPTS} attempts: 503 model is loading")
    with chat_server(lambda body, before: (503, AT_ONCE, "model is loading")) as requests, gave_up as raised:
        endpoint(requests.url).chat(HELLO)
    assert len(requests.bodies) == ATTEMPTS and not isinstance(raised.value, Unanswered)


def test_an_endpoint_out_of_reach_is_tried_for_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    with chat_server(lambda body, before: answering("x")) as requests:
        url = requests.url
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(EndpointError, match="ConnectError; is it up, and is the URL right"):
        endpoint(url).chat(HELLO)
    assert len(pauses) == ATTEMPTS - 1 and 20 < sum(pauses) < 40


def test_a_proxy_of_the_environment_is_used_for_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with chat_server(lambda body, before: answering("x")) as requests:
        monkeypatch.setenv("http_proxy", requests.url.removesuffix("/v1"))
        for url in (requests.url, requests.url.replace("127.0.0.1", "localhost"), "http://host.invalid/v1"):
            assert endpoint(url).chat(HELLO) == "x"
    assert requests.paths == ["/v1/chat/completions"] * 2 + ["http://host.invalid/v1/chat/completions"]


def test_the_client_is_not_loaded_before_it_is_needed() -> None:
    script = "import sys, tasks.models.endpoint as e; e.Endpoint('http://h/v1', 'm'); print('openai' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize(
    ("status", "single"), [(400, True), (413, True), (422, True), (401, False), (404, False), (307, False)]
)
def test_a_refused_request_is_not_sent_again(status: int, single: bool) -> None:
    refused = pytest.raises(EndpointError, match=f"refused a request to model m: {status}")
    headers = {"Location": "/elsewhere"} if status == 307 else {}
    with chat_server(lambda body, before: (status, headers, "no such thing")) as requests, refused as raised:
        endpoint(requests.url).chat(HELLO)
    assert len(requests.bodies) == 1 and isinstance(raised.value, Unanswered) == single


@pytest.mark.parametrize("status", [401, 400, 503])
def test_the_key_is_in_no_error_and_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    caplog.set_level(logging.DEBUG)
    text = '{"error": {"message": "wrong key sk-secret given"}}'
    with chat_server(lambda body, before: (status, AT_ONCE, text)) as requests:
        client = endpoint(requests.url)
        with pytest.raises(EndpointError) as raised:
            client.chat(HELLO)
    shown = f"{raised.value} {raised.value.__cause__} {raised.value.__context__} {vars(client)} {caplog.text}"
    assert "sk-secret" not in shown and requests.headers[0]["Authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
@pytest.mark.parametrize(
    "body", ["<html>", "{}", '{"choices": []}', '{"choices": {}}', '{"choices": [{"message": null}]}', "[]"]
)
def test_another_kind_of_service_is_recognised(body: str, content_type: str) -> None:
    incompatible = pytest.raises(EndpointError, match="not the response of an OpenAI-compatible chat endpoint")
    with chat_server(lambda *_: (200, {"Content-Type": content_type}, body)) as requests, incompatible:
        endpoint(requests.url).chat(HELLO)


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_an_answer_without_text_is_none(text: str | None) -> None:
    with chat_server(lambda *_: answering(text)) as requests, pytest.raises(Unanswered, match="answered without text"):
        endpoint(requests.url).chat(HELLO)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "", "http://host:99999/v1"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match=r"want http\(s\)://HOST"):
        Endpoint(url, "m")


@pytest.mark.parametrize("url", ["https://me:sk-secret@host/v1", "https://host/v1?key=sk-secret"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(EndpointError, match="environment variable OPENAI_API_KEY") as raised:
        Endpoint(url, "m")
    assert "sk-secret" not in str(raised.value)


def test_requests_run_in_parallel_up_to_the_limit_and_answers_keep_their_order() -> None:
    def slowly(body: dict, before: int) -> tuple:
        time.sleep(0.02 * (3 - before % 3))
        text = body["messages"][0]["content"]
        return (400, {}, "refused") if text == "5" else answering(f"to {text}")

    with chat_server(slowly) as requests:
        chats = [[{"role": "user", "content": str(i)}] for i in range(12)]
        answers = list(endpoint(requests.url, parallel=3).chat_each(chats))
    assert isinstance(answers.pop(5), Unanswered)
    assert answers == [f"to {i}" for i in range(12) if i != 5]
    assert 1 < requests.at_once <= 3


def test_an_image_is_sent_as_a_data_url() -> None:
    pixels = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], (16, 1, 3))
    image_part, text_part = image_message(Image.fromarray(pixels), "What is it?")["content"]
    assert text_part == {"type": "text", "text": "What is it?"}
    head, data = image_part["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert sent.shape == (16, 32, 3) and np.abs(sent.astype(int) - pixels).max() < 12


def test_questions_about_images_are_answered_in_order_with_none_for_a_refused_request() -> None:
    def answer(body: dict, before: int) -> tuple:
        text = body["messages"][0]["content"][1]["text"]
        return (400, {}, "") if text == "b" else answering(text.upper())

    images = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    with chat_server(answer) as requests:
        replies = list(endpoint(requests.url).answers([(images[0], "a"), (images[1], "b"), (images[0], "c")]))
    assert replies == ["A", None, "C"]
    urls = {
        b["messages"][0]["content"][1]["text"]: b["messages"][0]["content"][0]["image_url"]["url"]
        for b in requests.bodies
    }
    assert urls["a"] == urls["c"] != urls["b"]
    with chat_server(lambda *_: (401, {}, "")) as requests, pytest.raises(EndpointError, match="check the key"):
        list(endpoint(requests.url).answers([(images[0], "a")]))
