"""Every way to tune, to reward and to guard: which stages a round then has, and that they work on one store side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import catalog, runs
from tasks.stage.calls import run_recording
from tasks.stage.plan import planning
from tests.support.tiny_run import calls, computed, tiny

BEFORE = [("sample", ""), ("rollout", ""), ("score", ""), ("shape_rewards", "")]
TRAINING = {
    "sft": [("train_value", ""), ("search", ""), ("finetune", "")],
    "dpo": [("train_value", ""), ("prefer", ""), ("train_dpo", "")],
    "sentinel": [
        ("train_value", ""),
        ("search", ""),
        ("find_objects", ""),
        ("pair_sentences", ""),
        ("train_sentinel", ""),
    ],
    "grpo": [("train_grpo", "")],
    "fisao": [("score_tokens", ""), ("annotate", "train"), ("token_baselines", ""), ("train_fisao", "")],
}
AFTER = [("search", "round-1 greedy"), ("evaluate", "round-1 greedy"), ("drift", "round-1")]
MIXED = "scorer.rewards=[{kind: likelihood}, {kind: objects}, {kind: cosine, checkpoint: deployments/demo/scorer}]"


def planned(*overrides: str) -> list[tuple[str, str]]:
    """(stage, label) of the round, in order."""
    from flows.self_training import plan

    with planning() as planned_calls:
        plan(tiny(*overrides))
    entries = [(entry.stage, entry.label) for entry in planned_calls.entries]
    return entries[entries.index(("sample", "")) :]


def run(*overrides: str) -> tuple[str, str]:
    """(id, message) of a run."""
    from flows.self_training import improve

    profile = tiny("evaluate.decodings=[greedy]", *overrides)
    run_id = runs.start_run(profile.name, profile.model_dump_json())
    with run_recording(run_id):
        done = improve(profile, run_id)
    return run_id, done.message


def stages(run_id: str) -> list[tuple[str, str]]:
    return [(stage, label) for _, stage, label, _ in computed(run_id)]


@pytest.mark.parametrize("method", TRAINING)
def test_a_method_changes_what_follows_the_rewards_and_nothing_else(home: Path, method: str) -> None:
    own = ("finetune.grpo.generations=4",) if method == "grpo" else ()
    order = planned(f"finetune.method={method}", *own)
    start = [*BEFORE, *TRAINING[method], *AFTER]
    assert order[: len(start)] == start


def test_what_a_method_does_not_need_is_not_done(home: Path) -> None:
    by_reward = planned("finetune.method=dpo", "finetune.dpo.by=reward")
    assert "train_value" not in dict(by_reward)
    by_value = planned("finetune.method=grpo", "finetune.grpo.reward=value")
    assert "train_value" in dict(by_value)
    split = dict(planned("finetune.method=fisao", "finetune.fisao.baselines=split"))
    assert "split_token_baselines" in split and "annotate" not in split, "no annotation is read"


def test_rewards_are_computed_one_by_one_and_then_combined(home: Path) -> None:
    order = planned(MIXED)
    at = order.index(("rollout", ""))
    assert [stage for stage, _ in order[at + 1 : at + 7]] == [
        "find_objects",
        *["score"] * 3,
        "combine",
        "shape_rewards",
    ]
    assert len({label for stage, label in order[at + 1 : at + 7] if stage == "score"}) == 3


def test_annotated_captions_and_replay_are_stages_of_their_own(home: Path) -> None:
    order = planned("value.ground_truth=0.27", "finetune.replay.share=0.2", "drift.questions=5")
    extra = [call for call in order if call[0] in ("annotate", "reference_answers", "ask", "finetune")]
    assert list(dict.fromkeys(extra)) == [
        ("annotate", "train"), ("reference_answers", ""), ("ask", "replay"), ("finetune", ""), ("ask", "general"),
    ]  # fmt: skip
    assert ("compare", "round-1 - base general") in order


def test_methods_share_the_rollouts_and_each_moves_the_policy(home: Path) -> None:
    first, _ = run("finetune.method=dpo", "finetune.dpo.by=reward")
    second, _ = run("finetune.method=fisao", "finetune.fisao.iterations=1")
    assert {"rollout", "score", "shape_rewards"} <= dict(stages(first)).keys()
    assert not {"rollout", "score", "shape_rewards"} & dict(stages(second)).keys(), "the same rollouts and rewards"
    policies = set()
    for run_id, stage in ((first, "train_dpo"), (second, "train_fisao")):
        (call,) = [call for call in calls(run_id) if call.stage == stage]
        policies.add(json.loads(call.outputs)["policy"]["digest"])
    assert len(policies) == 2
    counts = catalog.query(f"select count(*) from token_scores where run_id = '{second}' and reward <> 0")[1]
    assert counts[0][0] > 0
    counts = catalog.query(
        f"select count(*) from preferences where run_id = '{first}' and chosen_worth > rejected_worth"
    )[1]
    assert counts[0][0] > 0


def test_pairs_of_next_sentences_come_from_the_search_and_move_the_policy(home: Path) -> None:
    # By the score alone, without doubt: pairs must come out whatever the demo's scorer takes for true.
    verdicts = "finetune.sentinel.verdicts=[{kind: score, band: 0}]"
    run_id, _ = run("finetune.method=sentinel", verdicts, "search.strategy=clip_prm", "search.candidates=4")
    assert {"search", "pair_sentences", "train_sentinel"} <= dict(stages(run_id)).keys()
    assert "train_value" not in dict(stages(run_id)), "this search has no use for V"
    paired = (
        "sentence_pairs p join search_trace t on p.sample_id = t.sample_id and p.step = t.step and p.run_id = t.run_id"
    )
    wrong = f"select count(*) from {paired} where p.run_id = '{run_id}' and t.candidate = p.chosen and t.text <> p.chosen_text"
    assert catalog.query(wrong)[1] == [(0,)]
    ((count, prefixes),) = catalog.query(
        f"select count(*), sum(case when prefix <> '' then 1 else 0 end) from sentence_pairs where run_id = '{run_id}'"
    )[1]
    assert count > 3 and prefixes > 0


def test_a_search_that_proposes_no_sentences_is_refused_before_the_run(home: Path) -> None:
    from flows.profiles.loading import ProfileError

    with pytest.raises(
        ProfileError, match=r"search\.strategy best_of_n proposes none; set search\.strategy to one of "
    ):
        tiny("finetune.method=sentinel", "search.strategy=best_of_n")


def test_a_model_that_drifts_is_refused_or_ends_the_run(home: Path) -> None:
    bound = "drift.max_length_change=0.001"
    refused, message = run(bound, "search.strategy=best_of_n", "promote.recall_tolerance=1")
    ((promoted, reason),) = catalog.query(f"select promoted, reason from decisions where run_id = '{refused}'")[1]
    assert not promoted and "drift limit exceeded" in reason and "length" in reason
    assert "drift limit exceeded: " not in message.partition("rejected")[0]
    _, message = run(bound, "drift.action=stop", "search.strategy=best_of_n", "promote.recall_tolerance=1")
    assert message.startswith("stopped after round 1: drift limit exceeded: ")


@pytest.mark.slow
def test_a_search_scores_its_candidates_by_the_mixed_reward(home: Path) -> None:
    run_id, _ = run(MIXED, "search.strategy=clip_prm")
    pairs = catalog.query(
        "select r.score, s.score from rewards r join search_trace s on r.sample_id = s.sample_id and r.sentence = s.text "
        f"and r.run_id = s.run_id where r.run_id = '{run_id}' and r.step = 0 and s.step = 0 and s.score is not null"
    )[1]
    assert len(pairs) > 5
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)
    assert catalog.query(f"select count(*) from reward_agreement where run_id = '{run_id}'")[1][0][0] > 0
