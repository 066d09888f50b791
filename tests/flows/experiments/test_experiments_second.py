"""Experiments on policies, rewards and people: what they take, what they plan, and the conclusions their figures support."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.experiments import (
    cross_model,
    forgetting,
    human_eval,
    reward_swap,
    scale,
    self_train,
    tags,
    third_policy,
    token_vs_sentence,
)
from flows.experiments.catalogue import find
from flows.experiments.running import carried_out, recorded
from flows.experiments.trained import answering
from flows.profiles.loading import CHECKOUT, Profile, ProfileError, load_profile
from storage import lake, runs
from storage.artifacts import ArtifactRef
from storage.schema import Finding, SheetPair
from tasks.core.analysis.findings import Findings
from tasks.stage.plan import planning
from tests.support.tiny_run import tiny

DEMO = CHECKOUT / "deployments" / "demo" / "policy"
NAMES = (
    "self-train",
    "third-policy",
    "cross-model",
    "reward-swap",
    "token-vs-sentence",
    "forgetting",
    "tags",
    "scale",
    "human-eval",
)
NAN = float("nan")


def other_profile(folder: Path, name: str = "other", extends: str = "demo") -> Path:
    """A profile whose policy is a copy of the demo's."""
    shutil.copytree(DEMO, folder / name)
    path = folder / f"{name}.yaml"
    path.write_text(f"extends: {extends}\npolicy:\n  checkpoint: {folder / name}\n")
    return path


def small(profile: Profile) -> Profile:
    """Few images, for plans."""
    smaller = tiny()
    return profile.model_copy(update={name: getattr(smaller, name) for name in ("data", "sample", "evaluate")})


def planned(name: str, profile: Profile, given: tuple[str, ...] = (), quick: bool = False) -> list[tuple[str, str]]:
    with planning() as plan:
        carried_out(name, profile, quick, given)
    return [(entry.stage, entry.label) for entry in plan.entries]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quick", [True, False])
def test_all_can_be_planned_on_an_empty_store(home: Path, tmp_path: Path, name: str, quick: bool) -> None:
    given, profile = (), tiny()
    if name in ("cross-model", "scale", "third-policy"):
        given = (str(other_profile(tmp_path)),)
    if name == "forgetting":
        profile = small(load_profile(other_profile(tmp_path)))
    if name == "tags":
        profile = small(load_profile(other_profile(tmp_path, extends="demo-cot")))
    stages = planned(name, profile, given, quick)
    assert stages[-1] == ("conclude", name)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("search", ["swires", "stage_beam"])
def test_granularity_of_a_policy_that_answers_in_stages_is_measured_on_its_answers(
    home: Path, search: str, quick: bool
) -> None:
    profile = small(load_profile("demo-cot", [f"search.strategy={search}"]))
    stages = planned("granularity", profile, quick=quick)
    arms = [label for stage, label in stages if stage == "search" and not label.startswith("base ")]
    assert arms[:2] == ["greedy staged", "stage_beam@4"]
    assert ("stage_beam:pairs=random@4" in arms) == (not quick)
    assert {"stage_beam@1", "stage_beam@2", "stage_beam@4"} <= set(arms) or quick
    measured = [label for stage, label in stages if stage == "evaluate_answers"]
    assert [f"base {arm}" for arm in arms] == measured[2:]
    assert "evaluate" not in dict(stages) and stages[-1] == ("conclude", "granularity")


def test_granularity_says_which_unit_answers_best(home: Path) -> None:
    right = {
        "greedy staged": 0.5,
        "stage: stage_beam@4": 0.6,
        "sentence: clip_prm@2": 0.55,
        "whole answer: best_of_n@8": 0.7,
    }
    rows = [Finding("granularity", arm, None, 0, "accuracy", value, None, None, 9) for arm, value in right.items()]
    own = "stage: stage_beam@4"
    for arm, low, high in (("sentence: clip_prm@2", -0.1, -0.04), ("whole answer: best_of_n@8", 0.06, 0.2)):
        rows.append(Finding("granularity", arm, None, 0, f"accuracy - {own}", (low + high) / 2, low, high, 9))
    rows.append(Finding("granularity", "stage_beam@2", 2.0, 0, "accuracy", 0.58, None, None, 9))
    text = find("granularity", "answers").answer(Findings(rows))
    assert text == (
        "At the same work most answers are right with whole answer: best_of_n@8, 70.0 % (greedy 50.0 %). Beside stage: "
        "stage_beam@4, surely better: whole answer: best_of_n@8; surely worse: sentence: clip_prm@2. By width: "
        "stage_beam@2 58.0 %."
    )
    assert find("granularity").columns[0] == "chair_s" and find("tags", "answers") == find("tags")


def test_each_reward_scores_the_same_answers_and_has_a_margin_of_its_own(home: Path) -> None:
    stages = [stage for stage, _ in planned("reward-swap", tiny())]
    searched = [label for stage, label in planned("reward-swap", tiny()) if stage == "search"]
    assert searched == ["greedy", "cosine", "objects", "likelihood", "object words", "cosine + likelihood"]
    assert stages.count("shape_rewards") == 5 and stages.count("judge_rewards") == 1 and "train_value" not in stages


def test_a_reward_that_the_profile_names_takes_part_once(home: Path) -> None:
    profile = tiny("scorer.rewards=[{kind: plugin, name: mine, weight: 3}, {kind: objects, weight: 2}]")
    assert [*reward_swap.kinds_of(profile)][5:] == ["plugin mine"]


def test_every_way_of_learning_has_its_own_rate(home: Path) -> None:
    rates = {
        arm.finetune.method: arm.finetune.lr for _, _, arm in token_vs_sentence.arms_of(load_profile("demo"), False)
    }
    assert rates == {"sft": 3e-4, "dpo": pytest.approx(3e-5), "fisao": pytest.approx(1e-4)}
    again = {
        arm.finetune.method: arm.finetune.lr for _, _, arm in token_vs_sentence.arms_of(load_profile("demo-dpo"), False)
    }
    assert again["dpo"] == load_profile("demo-dpo").finetune.lr


def test_v_is_learned_once_a_policy_and_guides_both(home: Path, tmp_path: Path) -> None:
    stages = planned("cross-model", tiny(), (str(other_profile(tmp_path)),))
    assert [stage for stage, _ in stages].count("train_value") == 2
    arms = [label for stage, label in stages if stage == "search" and ": V of " in label]
    assert arms[:2] == ["policy: V of policy", "policy: V of other"] and len(arms) == 8


def test_the_fixed_v_is_learned_once_for_the_whole_ladder(home: Path, tmp_path: Path) -> None:
    others = tuple(str(other_profile(tmp_path, name)) for name in ("first", "second"))
    stages = [stage for stage, _ in planned("scale", tiny(), others)]
    assert stages.count("train_value") == 1 and stages.count("size_of") == 3


def test_the_other_policy_must_be_named_where_none_is_known(home: Path, tmp_path: Path) -> None:
    elsewhere = load_profile("visvm-llava-next-7b", ["data.train.root=/nowhere", "data.benchmark.root=/nowhere"])
    with pytest.raises(ProfileError, match="--with PROFILE"):
        cross_model.other_policies(elsewhere, (), 1)
    with pytest.raises(ProfileError, match="same policy"):
        cross_model.other_policies(tiny(), ("demo",), 1)
    with pytest.raises(ProfileError, match="at most 1"):
        cross_model.other_policies(tiny(), ("demo", "demo-cot"), 1)
    (other,) = cross_model.other_policies(tiny(), (), 1)
    assert other.policy.checkpoint.endswith("policy-cot") and other.sample == tiny().sample
    with pytest.raises(ProfileError, match="task: answers"):
        tags.answers_of(elsewhere)


def test_only_some_experiments_take_with(home: Path) -> None:
    with pytest.raises(ProfileError, match="takes nothing by --with"):
        carried_out("self-train", tiny(), True, ("demo",))
    assert {name for name in NAMES if find(name).run_with} == {"cross-model", "scale", "human-eval", "third-policy"}


def test_the_third_policy_must_be_built_or_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"not in the store .*policy-third.*python -m flows.pretrain_third --seed 0"):
        carried_out("third-policy", tiny(), True)
    shutil.copytree(DEMO, third_policy.built_policy(0))
    assert ("evaluate", "policy-third: searched greedy") in planned("third-policy", tiny())
    stages = planned("third-policy", tiny(), (str(other_profile(tmp_path)),))
    assert ("evaluate", "other: own greedy greedy") in stages and [stage for stage, _ in stages].count("finetune") == 2


def test_forgetting_needs_a_policy_that_answers(home: Path) -> None:
    assert answering(tiny()).policy.checkpoint.endswith("policy-cot")
    mine = tiny("policy.checkpoint=elsewhere")
    assert answering(mine) == mine
    assert (
        forgetting.with_questions(tiny()).drift.questions == 20
        and forgetting.with_questions(tiny("drift.questions=7")).drift.questions == 7
    )


# People, from the sheets to the win rate.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("people")
        patch.setenv("VISLOOP_HOME", str(folder / "store"))
        yield folder


def test_sheets_go_out_and_ratings_come_back(store: Path) -> None:
    profile = tiny("evaluate.images=12", "sample.images=12", "search.strategy=best_of_n")
    run_id, findings, report = recorded("human-eval", profile)
    folder = runs.run_folder(run_id) / human_eval.FOLDER
    assert {path.name for path in folder.iterdir()} == {"sheet.html", "ratings.csv"}
    page = (folder / "sheet.html").read_text()
    assert "searched" not in page and "best_of_n" not in page
    assert findings.value(human_eval.SEARCHED, "pairs") == 12 and "--with FILE" in report.paragraph

    (key,) = [json.loads(call.outputs)["sheet_pairs"] for call in runs.stage_runs(run_id) if call.stage == "sheets"]
    pairs = {row.pair: row for row in lake.read_rows(SheetPair, ArtifactRef.model_validate(key))}
    lines = (folder / "ratings.csv").read_text().splitlines()
    given = []
    for rater, prefers in (("ann", "searched"), ("bob", "searched"), ("cid", "greedy")):
        rated = [lines[0]]
        for line in lines[1:]:
            sheet, _, pair, _ = line.split(",")
            rated.append(f"{sheet},{rater},{pair},{1 if pairs[int(pair)].right == prefers else -1}")
        given.append(store / f"{rater}.csv")
        given[-1].write_text("\n".join(rated))
    _, findings, report = recorded("human-eval", profile, given=[str(path) for path in given])
    assert findings.value(human_eval.VERDICT, "win_rate") == pytest.approx(2 / 3)
    assert [findings.value(f"{human_eval.VERDICT}@{n}", "win_rate") for n in (1, 2, 3)] == [1, 1, 0]
    assert findings.value(human_eval.VERDICT, "ratings") == 36 and "66.7 %" in report.paragraph
    assert report.again.count("--with") == 3


# Supported conclusions.


def figures(*rows: tuple[str, str, float, float, float]) -> Findings:
    return Findings(
        [Finding("x", arm, None, 0, metric, value, low, high, 100) for arm, metric, value, low, high in rows]
    )


def test_a_loss_is_called_sure_only_where_it_is() -> None:
    def conclusion(low: float, high: float) -> str:
        rows = [
            Finding("x", f"replay@{x:g}", x, 0, "general_change", value, *ends, 100)
            for x, value, ends in ((0.0, (low + high) / 2, (low, high)), (0.5, 0.0, (-0.1, 0.1)))
        ]
        return forgetting.answer(Findings(rows))

    assert "policy surely forgets" in conclusion(-0.2, -0.1) and "no loss is sure is 0.5" in conclusion(-0.2, -0.1)
    for low, high in ((-0.2, 0.01), (-0.2, -0.001)):  # the second is sure alone, but not beside the other arm
        text = conclusion(low, high)
        assert "does not surely forget" in text and "no sure loss for replay to prevent" in text


def test_policies_of_one_size_are_no_ladder() -> None:
    def conclusion(size: float) -> str:
        rows = [(f"{name}: greedy", "parameters", n, NAN, NAN) for name, n in (("a", 1e6), ("b", size))]
        rows += [(f"{name}: V of a", "chair_i", 0.1, NAN, NAN) for name in "ab"]
        rows += [
            (f"{name}: V of a", f"chair_i - {name}: greedy", -0.2, -0.3, high)
            for name, high in (("a", -0.1), ("b", 0.1))
        ]
        return scale.answer(figures(*rows))

    assert "says nothing of scale" in conclusion(1.1e6) and "helps 1 of 2 policies (a)" in conclusion(1.1e6)
    assert "grow 7.0-fold" in conclusion(7e6)


def test_people_prefer_surely_where_intervals_part() -> None:
    def conclusion(low: float, high: float) -> str:
        return human_eval.answer(figures((human_eval.VERDICT, "net_rate", (low + high) / 2, low, high)))

    assert "surely more often better than worse" in conclusion(0.2, 0.4)
    assert "surely more often worse than better" in conclusion(-0.4, -0.2)
    assert "neither better nor worse for sure" in conclusion(-0.1, 0.2)


def test_without_ratings_the_page_says_what_a_person_has_to_do_and_what_no_person_said() -> None:
    text = human_eval.answer(figures((human_eval.AUTOMATIC, "win_rate", 0.7, 0.6, 0.8)))
    assert text.startswith("No person has rated yet: send sheet.html") and "--with FILE" in text
    assert "An automatic rater (CHAIR's truth, no person) calls the searched caption better in 70.0 %" in text


def test_forms_that_do_not_differ_are_named() -> None:
    rows = [(arm, "accuracy", 0.5, 0.4, 0.6) for arm in ("base", "tagged", "untagged", "shuffled")]
    rows += [("untagged", "accuracy - tagged", -0.2, -0.3, -0.1), ("shuffled", "accuracy - tagged", 0.0, -0.1, 0.1)]
    conclusion = tags.answer(figures(*rows))
    assert conclusion.endswith("are surely worse: untagged; not surely different: shuffled.")


def test_the_control_is_what_training_itself_does() -> None:
    conclusion = self_train.answer(figures(("searched", "chair_i - own greedy", -0.3, -0.4, -0.2)))
    assert "Searched against own captions, CHAIRi is surely lower by 30.0 points" in conclusion
