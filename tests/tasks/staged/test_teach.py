"""Teacher and judge behind a local endpoint: what they are shown, what is stored, and that no request is sent twice."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Quarantined, Rollout, Sample, Verdict
from tasks.configs.staged import EndpointTeacher
from tasks.core.search.stages import closing, opening
from tasks.core.staged.answers import in_stages
from tasks.models.endpoint import EndpointError
from tasks.stage.quarantine import StageInputError, TooManyQuarantined
from tasks.staged import replies as module
from tasks.staged.teach import attempt_name, attempt_seed, judge, reasonings, teach
from tests.support.small_world import drawn, samples

GOOD = in_stages(["I look.", "There is a dog.", "So it is.", "Yes"])
Answerer = Callable[[dict[str, Any]], str | int]


class Server:
    """Answers chat requests by a function of the body (a text, or a status), and keeps the bodies."""

    def __init__(self, answer: Answerer) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.at_once = self.most = 0
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.bodies.append(body)
                    outer.at_once += 1
                    outer.most = max(outer.most, outer.at_once)
                reply = answer(body)
                with lock:
                    outer.at_once -= 1
                content = {"choices": [{"message": {"content": reply}}]} if isinstance(reply, str) else {"error": "no"}
                data = json.dumps(content).encode()
                self.send_response(200 if isinstance(reply, str) else reply)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def teacher(self) -> EndpointTeacher:
        return EndpointTeacher(url=f"http://127.0.0.1:{self.http.server_port}/v1", model="wise", parallel=3, timeout=10)


@contextmanager
def serving(answer: Answerer) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


INSTRUCTION = "Answer in four stages."


def questions() -> list[Sample]:
    return [
        Sample(sample.sample_id, sample.image_id, f"Is there a dog {n}? {INSTRUCTION}", sample.split)
        for n, sample in enumerate(samples())
    ]


def truth() -> Table:
    return lake.publish(
        Answer, [Answer(sample.sample_id, f"answer {n}", "what") for n, sample in enumerate(questions())]
    )


def text_of(body: dict[str, Any]) -> str:
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[1]["text"]


def number(body: dict[str, Any]) -> int:
    return int(text_of(body).split("Is there a dog ")[1].split("?")[0])


def taught(server: Server, *, attempt: int = 0, answers: Table | None = None):
    with lake.annotations_allowed():
        return teach.fn(
            server.teacher, drawn().images, lake.publish(Sample, questions()), answers or truth(), instruction=INSTRUCTION,
            attempt=attempt, seed=0,
        )  # fmt: skip


def test_the_teacher_is_shown_image_question_and_answer_and_nothing_of_the_instruction() -> None:
    with serving(lambda body: GOOD) as server:
        output = taught(server)
    assert len(server.bodies) == len(questions())
    for body in server.bodies:
        assert body["model"] == "wise" and body["temperature"] == 0
        picture, _ = body["messages"][0]["content"]
        kind, _, data = picture["image_url"]["url"].partition(",")
        assert kind.startswith("data:image/")
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 96)
        text = text_of(body)
        assert f"Question: Is there a dog {number(body)}?\n" in text and f"answer {number(body)}" in text
        assert INSTRUCTION not in text
    rows = lake.read_rows(Caption, output.captions)
    assert {(row.text, row.policy, row.strategy) for row in rows} == {(GOOD, "wise", "teacher")}
    assert {(row.sample_id, row.image_id) for row in rows} == {
        (sample.sample_id, sample.image_id) for sample in questions()
    }


def test_as_many_requests_are_under_way_as_the_profile_sets_and_no_more() -> None:
    together = threading.Barrier(3)  # passes only where three wait at once

    def answer(body: dict[str, Any]) -> str:
        if number(body) < 12:  # the last batch is not a multiple of three
            together.wait(timeout=20)
        return GOOD

    with serving(answer) as server:
        assert taught(server).captions.rows == 16
    assert server.most == 3


def test_each_image_goes_with_its_own_question() -> None:
    with serving(lambda body: GOOD) as server:
        taught(server)
    number_of = {sample.image_id: n for n, sample in enumerate(questions())}
    from tasks.models.endpoint import image_message
    from tasks.models.loading import load_images

    pictures = load_images(drawn().images, list(number_of))
    urls = {
        image_message(picture, "")["content"][0]["image_url"]["url"]: number_of[i] for i, picture in pictures.items()
    }
    for body in server.bodies:
        assert urls[body["messages"][0]["content"][0]["image_url"]["url"]] == number(body)


def test_replies_without_tags_are_in_quarantine_and_counted() -> None:
    def answer(body: dict[str, Any]) -> str:
        n = number(body)
        return "I can't help with that." if n < 3 else f"Sure!\n{GOOD}" if n < 6 else GOOD

    with serving(answer) as server:
        output = taught(server)
    assert output.counters == {"asked": 16, "unparsable": 3}
    refused = lake.read_rows(Quarantined, output.quarantine)
    assert {(row.stage, row.reason) for row in refused} == {("teach", "unparsable")}
    assert {row.item_id for row in refused} == {sample.sample_id for sample in questions()[:3]}
    assert {row.text for row in lake.read_rows(Caption, output.captions)} == {GOOD}


def test_a_later_attempt_is_sampled_and_has_another_name() -> None:
    with serving(lambda body: GOOD) as server:
        output = taught(server, attempt=1)
    assert {(body["temperature"], body["seed"]) for body in server.bodies} == {(1.0, attempt_seed(0, 1) % 2**31)}
    assert {row.strategy for row in lake.read_rows(Caption, output.captions)} == {"teacher-2"}
    assert (attempt_name("swires", 0), attempt_name("swires", 2)) == ("swires", "swires-3")
    assert attempt_seed(7, 0) == 7 != attempt_seed(7, 1) != attempt_seed(7, 2)


def test_too_many_failures_stop_the_stage_and_its_answers_are_not_requested_again(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "resume_folder", lambda: tmp_path)
    refuses = {1, 2, 3}
    with serving(lambda body: 400 if number(body) in refuses else GOOD) as server:
        with pytest.raises(TooManyQuarantined, match="3 of 16 requests"):
            taught(server)
        first = len(server.bodies)
        refuses.clear()
        output = taught(server)
        assert {number(body) for body in server.bodies[first:]} == {1, 2, 3}
    assert first == 16 and output.captions.rows == 16


def test_a_line_that_a_kill_cut_off_is_requested_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resume_folder", lambda: tmp_path)
    whole = [json.dumps([sample.sample_id, GOOD]) for sample in questions()[:4]]
    (tmp_path / "answered.jsonl").write_text("\n".join(whole) + '\n["abc", "<SUMM')
    with serving(lambda body: GOOD) as server:
        output = taught(server)
    assert len(server.bodies) == 12 and output.captions.rows == 16


def test_an_endpoint_that_refuses_everything_gets_no_further_requests() -> None:
    with serving(lambda body: 401) as server, pytest.raises(EndpointError, match="key"):
        taught(server)
    assert len(server.bodies) == 12  # the first batch


def test_a_teacher_needs_an_answer_to_every_question() -> None:
    part = lake.publish(Answer, [Answer(sample.sample_id, "x", "what") for sample in questions()[2:]])
    with serving(lambda body: GOOD) as server, pytest.raises(StageInputError, match="2 of 16 questions have no answer"):
        taught(server, answers=part)
    assert server.bodies == []


# The judge


def test_a_judge_gets_both_answers_and_only_valid_is_valid() -> None:
    texts = [GOOD, GOOD, GOOD, "Yes", *[GOOD] * 12]
    rows = [
        Caption(sample.sample_id, sample.image_id, "p", "teacher", text, 4, "end", 1, 0)
        for sample, text in zip(questions(), texts, strict=True)
    ]
    replies = {0: "invalid", 1: "It is valid, I think."}
    with serving(lambda body: replies.get(number(body), "Valid.")) as server, lake.annotations_allowed():
        output = judge.fn(
            server.teacher, lake.publish(Caption, rows), lake.publish(Sample, questions()), truth(), instruction=INSTRUCTION,
            attempt=0, seed=0,
        )  # fmt: skip
    assert output.counters == {"invalid": 1, "unclear": 1, "valid": 13}
    assert {number(body) for body in server.bodies} == set(range(16)) - {3}  # one without stages isn't judged
    for body in server.bodies:
        assert f"answer {number(body)}" in text_of(body) and "Other answer: Yes" in text_of(body)
        assert "There is a dog" not in text_of(body)
    valid = {row.sample_id: row.accepted for row in lake.read_rows(Verdict, output.judged)}
    assert [valid.get(sample.sample_id) for sample in questions()[:5]] == [False, False, True, None, True]


# What the search calibrates on


def test_reasonings_are_the_stage_that_is_rewarded_and_plain_answers_stay_whole() -> None:
    texts = [GOOD, "A dog.", f"{opening('SUMMARY')}I look.{closing('SUMMARY')}", ""]
    rows = [Rollout(f"s-{n}", "s", "p", f"t{n}", 0.6, 0.9, 0, text, 9, "stop") for n, text in enumerate(texts)]
    output = reasonings.fn(lake.publish(Rollout, rows))
    reasonings_by_id = {row.rollout_id: row for row in lake.read_rows(Rollout, output.rollouts)}
    assert [reasonings_by_id[f"s-{n}-reasoning"].text for n in range(4)] == ["So it is.", "A dog.", "", ""]
    assert {row.decode for row in reasonings_by_id.values()} == {f"t{n}-reasoning" for n in range(4)}
