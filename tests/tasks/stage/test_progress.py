"""Progress: lines in a log now and then, never an error."""

from __future__ import annotations

import io
import logging
import sys
from uuid import UUID

import pytest

from tasks.stage import progress as module
from tasks.stage.progress import create_markdown, progress
from tasks.stage.quarantine import StageInputError, TooManyQuarantined, check_nothing_lost


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, terminal = Clock(), Terminal()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with caplog.at_level(logging.INFO), progress("rollout", 4, unit="answers") as advance:
        clock.now = 20
        advance(3)
        with progress("score", 4, unit="sentences") as advance_other:  # another shard's
            clock.now = 40
            advance_other(1)
    assert "rollout" in terminal.getvalue() and "answers" in terminal.getvalue()
    assert [record.getMessage() for record in caplog.records] == ["score: 1 of 4 sentences"]
    with progress("label", 1):
        pass
    assert "label" in terminal.getvalue()


def test_nothing_to_do_is_no_error() -> None:
    with progress("rollout", 0) as advance:
        advance(0)


def test_an_error_inside_comes_out() -> None:
    with pytest.raises(LookupError), progress("rollout", 3) as advance:
        advance()
        raise LookupError


def test_outside_a_run_artifacts_are_not_made() -> None:
    create_markdown("Round 1", "text")


def test_in_a_task_an_artifact_is_updated_and_a_server_that_fails_is_ignored(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow, task

    from tasks.stage import prefect as client

    sent: list[float] = []
    monkeypatch.setattr(module, "_UPDATE_EVERY", 0.0)
    show_progress = client.show_progress

    def send(artifact: UUID | None, percent: float, name: str) -> UUID:
        sent.append(percent)
        if len(sent) > 2:
            raise ConnectionError("no server")
        return show_progress(artifact, percent, name)

    monkeypatch.setattr(client, "show_progress", send)

    @task
    def work() -> str:
        with progress("rollout", 4) as advance:
            for _ in range(4):
                advance()
        create_markdown("Round 1", "text")
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
