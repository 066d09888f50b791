"""A search's trace for people: its steps, the candidates of each, how they were judged, and why it stopped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tasks.core.search.contract import TraceRow
from tasks.core.text import words

WHY = {
    "end": "the policy ended its answer",
    "length": "the answer reached its token limit",
    "max_sentences": "the answer has as many sentences as it may",
    "repeat": "nothing new was proposed",
    "end_value": "the policy proposed to end, and no candidate was worth more than ending",
    "reward": "no candidate's score reached the margin",
    "vote": "at least half of the candidates ended the answer",
    "value": "the best candidate was worth less than ending",
    "refined": "every sentence below the threshold was revised",
    "cutoff": "enough candidates were rewarded above the cutoff",
    "rounds": "no round was left",
    "unfinished": "no answer got to its last stage",
    "untagged": "the policy opened no stage, so its whole answers were compared",
}
_GUIDES = ("value", "score")  # the first that a step has is drawn as bars


class CandidateView(NamedTuple):
    """One candidate as it is shown; numbers have 3 decimals and are empty where there is none."""

    text: str  # white space as it came
    temperature: str
    value: str
    score: str
    chosen: bool
    note: str  # why it was not judged, or that it ends the answer; often empty
    left: float  # where the bar of its guide begins, percent of the scale
    width: float  # the bar's length, percent of the scale; 0: no bar


class StepView(NamedTuple):
    """One step of a search: its candidates in the order of the trace."""

    title: str  # "step 1", with the search's phase where it has one
    guide: str  # what the bars show: value, score, or "" where nothing was judged
    zero: float  # where 0 lies on the bars' scale, percent
    candidates: list[CandidateView]
    stop: str  # why the search stopped here; empty if it went on


def explain_steps(rows: Sequence[TraceRow]) -> list[StepView]:
    """The steps of one answer's trace; bars of the same kind have one scale over all of them, and 0 is on it."""
    scales = {guide: _scale([getattr(row, guide) for row in rows]) for guide in _GUIDES}
    chosen_before: set[tuple[str, ...]] = set()
    steps = []
    for (number, phase), group in groupby(rows, key=lambda row: (row.step, row.phase)):
        members = list(group)
        guide = next((name for name in _GUIDES if any(getattr(row, name) is not None for row in members)), "")
        low, high = scales.get(guide, (0.0, 1.0))
        notes = _notes(members, chosen_before)
        steps.append(
            StepView(
                title=f"step {number + 1}" + (f", {phase}" if phase else ""),
                guide=guide,
                zero=_percent(0.0, low, high),
                candidates=[_view(row, guide, (low, high), note) for row, note in zip(members, notes, strict=True)],
                stop=next((why(row.stop) for row in members if row.stop), ""),
            )
        )
        chosen_before |= {_key(row) for row in members if row.chosen}
    return steps


def why(reason: str) -> str:
    """A reason to stop, with what it means where that is known: "reward: no candidate's score reached the margin"."""
    return f"{reason}: {WHY[reason]}" if reason in WHY else reason


def tree(steps: Sequence[StepView]) -> list[tuple[str, list[tuple[bool, str]]]]:
    """For a terminal: a title and (chosen, line) of each candidate, a step each; numbers stand below each other."""
    candidates = [candidate for step in steps for candidate in step.candidates]
    used = [name for name in _GUIDES if any(getattr(candidate, name) for candidate in candidates)]
    branches = []
    for step in steps:
        lines = [(candidate.chosen, _line(candidate, used)) for candidate in step.candidates]
        branches.append((step.title, lines + ([(False, f"stop: {step.stop}")] if step.stop else [])))
    return branches


def trace_dicts(rows: Iterable[TraceRow]) -> list[dict[str, Any]]:
    """The trace as JSON can hold it, by the names of the table `search_trace`; step and candidate count from 0."""
    return [
        {
            "step": row.step,
            "phase": row.phase,
            "candidate": row.candidate,
            "temperature": row.proposal.temperature,
            "text": row.proposal.text,
            "score": _finite(row.score),
            "value": _finite(row.value),
            "chosen": row.chosen,
            "ended": row.proposal.ended,
            "stop": row.stop,
        }
        for row in rows
    ]


def _view(row: TraceRow, guide: str, scale: tuple[float, float], note: str) -> CandidateView:
    number = _finite(getattr(row, guide)) if guide else None
    left = width = 0.0
    if number is not None:
        ends = sorted((_percent(0.0, *scale), _percent(number, *scale)))
        left, width = ends[0], ends[1] - ends[0]
    numbers = (_number(row.proposal.temperature), _number(row.value), _number(row.score))
    return CandidateView(row.proposal.text, *numbers, row.chosen, note, left, width)


def _notes(rows: Sequence[TraceRow], chosen_before: set[tuple[str, ...]]) -> list[str]:
    """A note on each candidate of a step, often empty: why it was not judged, or that it would be the last.

    Where all of them end, as whole answers do, only an empty one is marked.
    """
    here: set[tuple[str, ...]] = set()
    all_end = all(row.proposal.ended for row in rows)
    notes = []
    for row in rows:
        key, judged = _key(row), row.score is not None or row.value is not None
        parts = []
        if key and not (judged or row.chosen):
            parts += ["as above"] if key in here else ["chosen before"] if key in chosen_before else []
        parts += ["ends the answer"] if row.proposal.ended and not (key and all_end) else []
        notes.append(", ".join(parts))
        here.add(key)
    return notes


def _key(row: TraceRow) -> tuple[str, ...]:
    return tuple(words(row.proposal.text))


def _scale(numbers: Iterable[float | None]) -> tuple[float, float]:
    """From the least to the largest number, 0 included: a bar's length is then in proportion."""
    known = [0.0, *(number for number in map(_finite, numbers) if number is not None)]
    return min(known), max(known)


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _percent(number: float, low: float, high: float) -> float:
    return round(100 * (number - low) / (high - low), 2) if high > low else 0.0


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"


def _line(candidate: CandidateView, used: Sequence[str]) -> str:
    """A candidate on one line; a number that it lacks leaves its column empty."""
    cells = [f"T {candidate.temperature}"]
    for name in used:
        number = getattr(candidate, name)
        cells.append(f"{name} {number:>6}" if number else " " * (len(name) + 7))
    text = " ".join(candidate.text.split()) or "(nothing)"
    return "  ".join([*cells, text]) + (f"  ({candidate.note})" if candidate.note else "")
