"""LLaVA-CoT's loop, small: what is answered, verified, learned and measured, in which order, and what a change touches."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from flows.profiles.loading import Profile, load_profile
from storage import catalog, lake, runs
from storage.artifacts import ArtifactRef
from storage.schema import ROW_TYPES, Sample
from tasks.core.staged.answers import form_problem
from tasks.stage.calls import run_recording
from tasks.stage.plan import planning
from tasks.stage.quarantine import StageInputError
from tests.support.tiny_run import calls, computed

SMALL = (
    "data.train.images=120", "data.benchmark.images=120", "sample.images=16", "evaluate.images=12",
    "evaluate.bootstrap=200", "rollout.greedy=false", "rollout.temperatures=[0.6, 0.6]", "staged.min_agreement=0",
    "search.options={captions: 2, kept: 1, rounds: 1, conclusions: 1}", "finetune.epochs=1", "finetune.batch_size=8",
    "runtime.device=cpu", "runtime.threads=1", "rounds=1",
)  # fmt: skip
ENDPOINT = "staged.teacher={kind: endpoint, url: 'http://127.0.0.1:9/v1', model: wise}"


def small(*overrides: str) -> Profile:
    other_images = any(override.startswith("data.train=") for override in overrides)
    settings = [setting for setting in SMALL if not (other_images and setting.startswith("data.train."))]
    return load_profile("demo-cot", [*settings, *overrides])


def run(*overrides: str) -> str:
    from flows.self_training import improve
    from tasks.report.run_report import write_report

    profile = small(*overrides)
    run_id = runs.start_run(profile.name, profile.model_dump_json())
    with run_recording(run_id):
        done = improve(profile, run_id)
    runs.finish_run(run_id, "completed", rounds=done.rounds, champion=done.champion, message=done.message)
    write_report(run_id)
    return run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers") / "store"


@pytest.fixture(autouse=True)
def _in_that_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISLOOP_HOME", str(store))


@pytest.fixture(scope="module")
def first(store: Path) -> str:
    """The id of a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(store))
        return run()


def planned(*overrides: str) -> list[tuple[str, str]]:
    """(stage, label) in the order of the loop, on an empty store."""
    from flows.self_training import plan

    with planning() as planned_calls:
        plan(small(*overrides))
    return [(entry.stage, entry.label) for entry in planned_calls.entries]


def rows(sql: str) -> list[tuple]:
    return catalog.query(sql)[1]


ROUND = [
    ("sample", ""), ("ask", ""), ("ask", "staged"), ("rollout", ""), ("reasonings", ""), ("score", ""), ("shape_rewards", ""),
    ("search", "attempt 1"), ("verify_by_agreement", "attempt 1"),
    ("search", "attempt 2"), ("verify_by_agreement", "attempt 2"),
    ("plainly", ""), ("finetune", ""), ("search", "round-1 greedy"), ("evaluate_answers", "round-1 greedy"),
    ("compare", "round-1 - base"), ("promote", "round-1"), ("search", "base swires"), ("plainly", "base swires"),
    ("evaluate_answers", "base swires"), ("compare", "base swires - greedy"),
]  # fmt: skip


def test_the_order_is_that_of_the_method(home: Path) -> None:
    stages = planned()
    assert stages[-len(ROUND) :] == ROUND
    assert [stage for stage, _ in stages[: -len(ROUND)]] == [
        "sample", "ask", "ask", "search", "evaluate_answers", "search", "plainly", "evaluate_answers", "compare",
    ]  # fmt: skip


def test_who_teaches_and_who_verifies_change_what_is_computed(home: Path) -> None:
    reference = planned("staged.verify=reference", "search.strategy=stage_beam", "search.options={}")
    assert not {"rollout", "score", "reasonings", "verify_by_agreement"} & {stage for stage, _ in reference}
    assert ("verify", "attempt 2") in reference
    judged = [stage for stage, label in planned(ENDPOINT, "staged.verify=judge") if label == "attempt 1"]
    assert judged == ["teach", "judge", "verify_by_judge"]
    voted = [stage for stage, _ in planned(ENDPOINT, "staged.attempts=1")]
    assert voted.count("rollout") == 1 and "score" not in voted and "judge" not in voted


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["promote.metric=chair_i"], "promote.metric"),
        (["finetune.method=dpo"], "finetune.method"),
        (["search.strategy=visvm", "search.options={}"], "needs a value model"),
        (["staged.verify=judge"], "the judge is the teacher's endpoint"),
        (["data.train={kind: folder, root: /tmp}"], "questions.train"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_before_anything_runs(
    home: Path, overrides: list[str], problem: str
) -> None:
    with pytest.raises(StageInputError, match=problem):
        planned(*overrides)


def test_a_run_ends_with_a_verdict_and_a_report(first: str) -> None:
    done = runs.load_run(first)
    assert (done.status, done.rounds) == ("completed", 1)
    ((reason,),) = rows(f"select reason from decisions where run_id = '{first}'")
    assert "round-1 against base: " in reason and "accuracy" in reason
    page = (runs.run_folder(first) / "report.html").read_text()
    for text in (
        "Accuracy %",
        "base, instructed to answer in stages",
        "base + search (swires)",
        "Verification",
        "conclusion",
    ):
        assert text in page
    assert "CHAIR" not in page.split('id="profile"')[0]


def test_rounds_are_measured_by_accuracy_and_by_kind(first: str) -> None:
    counts = rows(f"select distinct subject, decoding, n from metrics where run_id = '{first}' and metric = 'accuracy'")
    assert sorted(counts) == [
        ("base", "greedy", 12),
        ("base", "staged", 12),
        ("base", "swires", 12),
        ("round-1", "greedy", 12),
    ]
    shares = dict(
        rows(f"select decoding, value from metrics where run_id = '{first}' and metric = 'staged' and subject = 'base'")
    )
    assert shares["greedy"] == 0 and shares["staged"] > 0.5


def test_each_row_shows_once(first: str) -> None:
    for table in ("samples", "answers", "captions", "verdicts", "scores", "rollouts"):
        key = ", ".join(ROW_TYPES[table].primary_key)
        ((rows_, distinct),) = rows(f"select count(*), count(distinct ({key})) from {table} where run_id = '{first}'")
        assert rows_ == distinct > 0, table


def test_what_is_learned_are_the_accepted_answers_under_the_bare_questions(first: str) -> None:
    accepted = dict(rows(f"select sample_id, text from verdicts where run_id = '{first}' and accepted"))
    assert accepted and not any(map(form_problem, accepted.values()))
    (call,) = [call for call in calls(first) if call.stage == "plainly" and call.round == 1 and not call.label]
    ref = ArtifactRef.model_validate(json.loads(call.outputs)["plain"])
    lesson = {row["sample_id"]: row["text"] for row in lake.read(ref).to_pylist()}
    assert sorted(lesson.values()) == sorted(accepted.values())
    (made,) = [call for call in calls(first) if call.stage == "ask" and call.round == 1 and not call.label]
    samples = lake.read_rows(Sample, ArtifactRef.model_validate(json.loads(made.outputs)["samples"]))
    prompts = {sample.sample_id: sample.prompt for sample in samples}
    assert all(prompts[sample_id].endswith("?") for sample_id in lesson)
    (trained,) = [call for call in calls(first) if call.stage == "finetune"]
    assert json.loads(trained.counters)["examples"] == len(accepted)


def test_only_what_was_refused_is_tried_again(first: str) -> None:
    tried = rows(
        f"select attempt, count(*), count(*) filter (accepted) from verdicts where run_id = '{first}' group by 1 order by 1"
    )
    assert tried[0][1] == 16
    for (_, answers, accepted), (_, again, _) in pairwise(tried):
        assert again == answers - accepted


def test_a_second_run_computes_nothing_and_another_gate_only_what_comes_after_it(first: str) -> None:
    assert computed(run()) == []
    changed = {stage for _, stage, _, _ in computed(run("staged.verify=reference", "staged.attempts=1"))}
    assert "verify" in changed
    assert not changed & {"sample", "ask", "rollout", "reasonings", "score", "shape_rewards"}
