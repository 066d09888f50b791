"""Profiles: what a user may write, and the errors where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.profiles.loading import Profile, ProfileError, available_profiles, load_profile, locate
from flows.profiles.overrides import RENAMED, models_of
from tasks.configs.data import FolderSource
from tasks.configs.reward import OtsuTau, QuantileTau
from tasks.configs.search import search_config
from tasks.configs.train import DpoConfig, DpoSettings, GrpoConfig
from tasks.core.search.registry import names
from tasks.stage.config import StageConfig


def problem(name: str = "demo", *overrides: str) -> str:
    """The text of the error that a profile with these overrides raises."""
    with pytest.raises(ProfileError) as caught:
        load_profile(name, overrides)
    assert "pydantic" not in str(caught.value) and "http" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", available_profiles())
def test_every_shipped_profile_is_valid_and_named_as_its_file(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description


def test_an_override_reaches_a_nested_setting_and_leaves_its_neighbours() -> None:
    before, after = load_profile("demo"), load_profile("demo", ["search.candidates=4", "finetune.lr=1e-5"], rounds=3)
    assert (after.search.candidates, after.finetune.lr, after.rounds) == (4, 1e-5, 3)
    assert after.search.max_sentences == before.search.max_sentences


def test_a_mapping_is_merged_not_put_in_place_of_the_section() -> None:
    before, after = load_profile("demo"), load_profile("demo", ["search={candidates: 4}"])
    assert after.search == before.search.model_copy(update={"candidates": 4})


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.train={kind: folder, root: x}"],
        ["data.train.kind=folder", "data.train.root=x"],
        ["data.train.root=x", "data.train.kind=folder"],
    ],
)
def test_another_kind_drops_what_belonged_to_the_old_one(overrides: list[str]) -> None:
    assert load_profile("demo", overrides).data.train == FolderSource(root="x")


def test_tau_changes_kind_and_takes_that_kinds_defaults() -> None:
    assert load_profile("demo-fisao", ["label.tau.kind=quantile"]).label.tau == QuantileTau()
    assert load_profile("folder", ["label.tau.kind=otsu"]).label.tau == OtsuTau()


def test_a_profile_that_extends_another_with_another_method_drops_the_old_branch(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo-dpo\nfinetune: {method: grpo, batch_size: 8}\n")
    dpo, mine = load_profile("demo-dpo").finetune, load_profile(tmp_path / "mine.yaml").finetune
    assert mine == GrpoConfig(train="full", lr=dpo.lr, epochs=dpo.epochs, batch_size=8)


def test_a_profile_that_does_not_name_the_method_inherits_it_and_its_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo-grpo\nfinetune: {lr: 1.0e-6}\n")
    mine, grpo = load_profile(tmp_path / "mine.yaml").finetune, load_profile("demo-grpo").finetune
    assert mine == grpo.model_copy(update={"lr": 1e-6})


@pytest.mark.parametrize(
    "overrides",
    [
        ["finetune.method=dpo", "finetune.dpo.beta=0.2", "finetune.lr=1e-3"],
        ["finetune.lr=1e-3", "finetune.dpo.beta=0.2", "finetune.method=dpo"],
        ["finetune.dpo.beta=0.2", "finetune={method: dpo, lr: 1e-3}"],
    ],
)
def test_a_method_is_switched_first_whatever_the_order_of_the_overrides(overrides: list[str]) -> None:
    switched = DpoConfig(train="full", lr=1e-3, epochs=2, dpo=DpoSettings(beta=0.2))
    assert load_profile("demo", overrides).finetune == switched


@pytest.mark.parametrize("strategy", [name for name in names() if name != "swires"])
def test_another_strategy_drops_the_options_of_the_profiles_own(
    strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    switched, own = load_profile("demo-cot", [f"search.strategy={strategy}"]).search, load_profile("demo-cot").search
    assert own.options and switched == own.model_copy(update={"strategy": strategy, "options": {}})
    assert switched == search_config(own, strategy), "as `compare` reads the strategy's name"
    (line,) = caplog.messages
    assert "search.options (captions=4, kept=2" in line and f"search.strategy=swires, which is now {strategy}" in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["search.strategy=stage_beam", "search.options.width=4"],
        ["search.options.width=4", "search.strategy=stage_beam"],
        ["search={strategy: stage_beam, options: {width: 4}}"],
        ["search.strategy=greedy", "search.strategy=stage_beam", "search.options={width: 4}"],
    ],
)
def test_a_strategys_own_options_are_set_beside_it(overrides: list[str]) -> None:
    assert load_profile("demo-cot", overrides).search.options == {"width": 4}


def test_the_same_strategy_keeps_its_options(caplog: pytest.LogCaptureFixture) -> None:
    kept = load_profile("demo-cot", ["search.strategy=swires", "search.options.rounds=3"]).search.options
    assert kept == load_profile("demo-cot").search.options | {"rounds": 3} and not caplog.messages


def test_a_profile_that_extends_another_with_another_strategy_drops_its_options(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo-cot\nsearch: {strategy: stage_beam, options: {width: 4}}\n")
    assert load_profile(tmp_path / "mine.yaml").search.options == {"width": 4}


def test_naming_the_same_method_again_changes_nothing() -> None:
    assert load_profile("demo-dpo", ["finetune.method=dpo"]) == load_profile("demo-dpo")
    replayed = ["finetune.replay.share=0.5"]
    assert load_profile("demo", [*replayed, "finetune.method=sft"]) == load_profile("demo", replayed)


def test_a_setting_of_another_method_is_refused_and_names_its_method() -> None:
    assert "finetune.dpo: no such setting; it belongs to finetune.method=dpo" in problem("demo", "finetune.dpo.beta=1")
    assert "it belongs to finetune.method=grpo" in problem("demo-dpo", "finetune.grpo.generations=2")
    assert "it belongs to finetune.method=sft" in problem("demo", "finetune.replay.share=0.5", "finetune.method=dpo")


def test_one_field_of_a_union_that_the_file_leaves_out_starts_from_its_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("policy: {checkpoint: p}\nscorer: {checkpoint: s}\n")
    profile = load_profile(path, ["data.benchmark.images=40", "label.tau.q=0.5"])
    assert profile.name == "mine"
    assert profile.data.benchmark.split == "test"
    assert profile.label.tau == QuantileTau(q=0.5)


def test_an_unknown_setting_names_its_nearest_neighbour_and_what_is_allowed() -> None:
    text = problem("demo", "search.candidats=4")
    assert "search.candidats: no such setting; did you mean search.candidates?" in text
    assert "max_sentences" in text


def test_a_setting_at_the_wrong_level_is_suggested_at_the_right_level() -> None:
    assert "did you mean search.candidates?" in problem("demo", "candidates=4")
    assert "it belongs to data.train.kind=coco or folder" in problem("demo", "data.train.root=x")


def test_all_problems_are_reported_at_once_with_the_value_and_what_is_allowed() -> None:
    text = problem(
        "demo", "rounds=0", "search.temperatures=[0.1, -1]", "policy.dtype=bf16", "label.tau.kind=otus", "sample=5"
    )
    assert text.startswith("profile 'demo' has 5 problems:")
    assert "rounds: got 0; allowed: at least 1 and at most 100" in text
    assert "search.temperatures[1]: got -1; allowed: above 0 and at most 5" in text
    assert "policy.dtype: got 'bf16'; allowed: float32, bfloat16, float16; did you mean bfloat16?" in text
    assert "label.tau.kind: got 'otus'; allowed: fixed, otsu, quantile; did you mean otsu?" in text
    assert "sample: got 5; allowed: a mapping with images" in text


def test_measuring_on_the_training_images_is_refused() -> None:
    text = problem("demo", "data.benchmark.split=train", "data.benchmark.images=200")
    assert "data.benchmark.split" in text and "prove nothing" in text


def test_a_missing_section_is_named_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert "policy: missing; allowed: a mapping with checkpoint" in problem(str(path))


def test_an_unknown_profile_names_the_nearest() -> None:
    assert "did you mean demo?" in problem("dmo")
    assert "shipped: demo, demo-" in problem("zzz")
    assert "no profile file at here/none.yaml" in problem("here/none.yaml")


@pytest.mark.parametrize("override", ["a", "=4", "a.=4", "search.candidates={"])
def test_an_override_that_is_not_one_is_explained(override: str) -> None:
    assert repr(override) in problem("demo", override)


def test_text_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    assert "holds a list" in problem(str(tmp_path / "list.yaml"))
    assert "is not YAML" in problem(str(tmp_path / "bad.yaml"))


def test_places_are_resolved_from_here_and_from_the_checkout_and_hub_ids_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert locate("mine") == str(tmp_path / "mine")
    assert Path(locate("deployments/profiles")).is_dir()
    assert locate("llava-hf/llava-v1.6-mistral-7b-hf") == "llava-hf/llava-v1.6-mistral-7b-hf"


def _undescribed(schema: dict, name: str) -> list[str]:
    """Fields of the form without a description."""
    missing = []
    for definition, node in {name: schema, **schema.get("$defs", {})}.items():
        missing += [
            f"{definition}.{field}" for field, child in node["properties"].items() if not child.get("description")
        ]
    return missing


def test_the_run_form_explains_every_field() -> None:
    schema = Profile.model_json_schema()
    assert _undescribed(schema, "Profile") == []
    assert all(node.get("title") for node in schema["$defs"].values())


def test_a_profile_that_extends_another_is_that_one_but_for_what_it_sets(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: demo\nsearch: {candidates: 3}\nlabel: {tau: {kind: quantile, q: 0.2}}\n"
    )
    mine, demo = load_profile(tmp_path / "mine.yaml"), load_profile("demo")
    changed = {"name": "mine", "search": mine.search, "label": mine.label}
    assert mine == demo.model_copy(update=changed)
    assert (mine.search.candidates, mine.label.tau) == (3, QuantileTau(q=0.2))
    assert mine.search.max_sentences == demo.search.max_sentences


def test_a_profile_may_extend_its_neighbour_which_extends_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: demo\nrounds: 5\n")
    (tmp_path / "b.yaml").write_text("extends: a\nseed: 7\n")
    extended = load_profile(tmp_path / "b.yaml")
    assert (extended.name, extended.rounds, extended.seed) == ("b", 5, 7)


def test_a_renamed_setting_is_accepted_under_its_former_name_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(RENAMED, "search.width", "search.candidates")
    monkeypatch.setitem(RENAMED, "critic.discount", "value.gamma")
    (tmp_path / "mine.yaml").write_text("extends: demo\nsearch: {width: 3}\ncritic: {discount: 0.5}\n")
    mine = load_profile(tmp_path / "mine.yaml")
    assert (mine.search, mine.value.gamma) == (load_profile("demo", ["search.candidates=3"]).search, 0.5)
    assert load_profile("demo", ["search.width=4"]).search.candidates == 4
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "search.width is now search.candidates", "critic.discount is now value.gamma",
        "search.width is now search.candidates",
    ]  # fmt: skip


def test_a_former_stop_is_accepted_in_files_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: demo\nsearch: {stop: reward}\n")
    (tmp_path / "b.yaml").write_text("extends: a\nsearch: {end: guide, end_value: 0.2}\n")
    former = load_profile(tmp_path / "a.yaml").search
    assert former == load_profile("demo", ["search.end=policy", "search.filter=margin"]).search
    assert load_profile(tmp_path / "b.yaml").search == former.model_copy(update={"end": "guide", "end_value": 0.2})
    voted = load_profile(tmp_path / "a.yaml", ["search.stop=vote"])
    assert voted.search == load_profile("demo", ["search.end=vote"]).search


def test_a_former_stop_beside_what_it_has_become_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("extends: demo\nsearch: {stop: vote, end: vote}\n")
    assert "take out stop, or end" in problem(str(tmp_path / "both.yaml"))
    text = problem("demo", "search.stop=vote", "search.end=action")
    assert "take out stop, or end" in text and "\n" not in text
    assert "'never' and was reward, vote, chosen, value" in problem("demo", "search.stop=never")


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    assert "circle" in problem(str(tmp_path / "a.yaml"))


def test_a_config_knows_its_section_of_the_profile() -> None:
    """`visloop plan` names a changed setting as `--set` takes it, whatever its stage is called."""
    for name, field in Profile.model_fields.items():
        for model in models_of(field):
            if issubclass(model, StageConfig):
                assert model.section == name


@pytest.mark.parametrize("shaping", ["none", "floor", "zero_below", "continuous", "published_equation"])
def test_optimal_stopping_is_refused_where_zero_is_not_what_ending_is_worth(shaping: str) -> None:
    with pytest.raises(ProfileError, match=r"set label\.shaping to centred"):
        load_profile("demo", ["value.terminal=optimal_stopping", f"label.shaping={shaping}"])
    assert load_profile("demo", ["value.terminal=optimal_stopping"]).label.shaping == "centred"
