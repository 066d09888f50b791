"""Progress: lines in a log now and then, never an error."""

from __future__ import annotations

import logging

import pytest

from tasks.stage import progress as module
from tasks.stage.progress import create_markdown, create_table, progress
from tasks.stage.stage import StageInputError, TooManyQuarantined, check_nothing_lost


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_log_gets_a_line_every_ten_seconds_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    with caplog.at_level(logging.INFO), progress("rollout", 100, unit="answers") as advance:
        for _ in range(25):
            clock.now += 1
            advance(2)
    assert [record.getMessage() for record in caplog.records] == [
        "rollout: 20 of 100 answers, 2 a second, 40 s left",
        "rollout: 40 of 100 answers, 2 a second, 30 s left",
    ]


def test_nothing_to_do_is_no_error() -> None:
    with progress("rollout", 0) as advance:
        advance(0)


def test_an_error_inside_comes_out() -> None:
    with pytest.raises(LookupError), progress("rollout", 3) as advance:
        advance()
        raise LookupError


def test_outside_a_run_artifacts_are_not_made() -> None:
    create_table("Round 1", [{"a": 1}])
    create_markdown("Round 1", "text")


def test_in_a_task_the_ring_is_sent_and_a_server_that_fails_is_ignored(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow, task

    sent: list[float] = []
    monkeypatch.setattr(module, "_UPDATE_EVERY", 0.0)
    real = module._Ring._send

    def send(ring: module._Ring, percent: float) -> None:
        sent.append(percent)
        if len(sent) > 2:
            raise ConnectionError("no server")
        real(ring, percent)

    monkeypatch.setattr(module._Ring, "_send", send)

    @task
    def work() -> str:
        with progress("rollout", 4) as advance:
            for _ in range(4):
                advance()
        create_table("Round 1", [{"a": 1}])
        return "done"

    assert flow(work)() == "done"
    assert sent == [25, 50, 75]


def test_every_row_is_accounted_for() -> None:
    check_nothing_lost("label", 10, 9, 1, 0.1)
    check_nothing_lost("label", 0, 0, 0, 0.0)
    with pytest.raises(StageInputError, match="1 lost"):
        check_nothing_lost("label", 10, 9, 0, 0.1)
    with pytest.raises(StageInputError, match="1 too many"):
        check_nothing_lost("label", 10, 10, 1, 0.5)
    with pytest.raises(TooManyQuarantined, match=r"2 of 10 rows were refused \(20%; at most 10% may be\)"):
        check_nothing_lost("label", 10, 8, 2, 0.1)
