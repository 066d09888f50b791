"""Profiles: one YAML file holds everything that a run depends on.

A profile is read, overrides (`a.b=value`) are laid over it, and the result is checked as a whole, so that every problem
is reported at once. Nothing here opens a model, an image or the network.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from flows.profiles.errors import explain
from flows.profiles.overrides import Tree, lay_over, nested, with_present_names
from tasks.configs.data import DataConfig, FolderSource, SampleConfig
from tasks.configs.evaluate import DriftConfig, EvaluateConfig, HealthConfig, PromoteConfig
from tasks.configs.policy import PolicyConfig
from tasks.configs.reward import LabelConfig, ScorerConfig
from tasks.configs.rollout import RolloutConfig
from tasks.configs.search import SearchConfig, check_spelling, present_spelling, sentence_searches
from tasks.configs.staged import QuestionConfig, StagedConfig
from tasks.configs.train import FinetuneConfig, SentinelConfig, SftConfig
from tasks.configs.value import ValueConfig
from tasks.stage.config import StageConfig
from tasks.stage.runtime import RuntimeConfig

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[2]
PROFILES = CHECKOUT / "deployments" / "profiles"
RENAMED_PROFILES = {"llava-7b-coco": "visvm-llava-next-7b"}  # a shipped profile's former name -> its name


class ProfileError(ValueError):
    """A profile that cannot be run; the text names every field at fault and what is allowed there."""


class Profile(StageConfig):
    """Everything a self-training run depends on: which models, which images, and how each stage works."""

    model_config = ConfigDict(title="Profile")

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        title="Name",
        description="part of every run's id; letters, digits, dot, dash and underscore",
    )
    description: str = Field("", title="Description", description="one line for people; changes nothing")
    seed: int = Field(0, ge=0, title="Seed", description="every random draw of the run derives from it")
    rounds: int = Field(2, ge=1, le=100, title="Rounds", description="rounds of improvement at most")
    patience: int = Field(
        1, ge=1, le=100, title="Patience", description="stop after this many rounds in a row without a promotion"
    )
    task: Literal["captions", "answers"] = Field(
        "captions",
        title="Task",
        description="captions: describe images (VisVM, ViMaR, FiSAO); answers: answer questions in four stages (LLaVA-CoT)",
    )
    policy: PolicyConfig = Field(title="Policy", description="the vision-language model to improve")
    scorer: ScorerConfig = Field(title="Scorer", description="the image-text model whose similarity is the reward")
    data: DataConfig = Field(
        DataConfig(), title="Data", description="images to learn from, and annotated images to measure on"
    )
    sample: SampleConfig = Field(SampleConfig(), title="Sample", description="stage 1: which images, which prompts")
    questions: QuestionConfig = Field(
        QuestionConfig(), title="Questions", description="task answers: the questions about the images"
    )
    staged: StagedConfig = Field(
        StagedConfig(), title="Staged answers", description="task answers: who writes them, and which ones are learned"
    )
    rollout: RolloutConfig = Field(
        RolloutConfig(), title="Rollouts", description="stage 2: how the policy answers, several times per image"
    )
    label: LabelConfig = Field(
        LabelConfig(), title="Rewards", description="stage 3: from sentence scores to rewards, with a margin"
    )
    value: ValueConfig = Field(
        ValueConfig(), title="Value model", description="stage 4: temporal-difference training of a sentence's value"
    )
    search: SearchConfig = Field(
        SearchConfig(), title="Search", description="stage 5: how better captions are found, sentence by sentence"
    )
    finetune: FinetuneConfig = Field(
        SftConfig(),
        title="Fine-tuning",
        description="stage 6: how the policy learns; an override, or a profile that extends another, may switch the method: "
        "settings that all methods share are kept, the old method's own are dropped",
    )
    evaluate: EvaluateConfig = Field(
        EvaluateConfig(), title="Benchmark", description="stage 7: CHAIR on held-out images, with intervals"
    )
    health: HealthConfig = Field(
        HealthConfig(),
        title="Health gate",
        description="before the first round: does the base hallucinate, and does the scorer separate?",
    )
    drift: DriftConfig = Field(
        DriftConfig(), title="Drift", description="bounds on what a new model may lose in what it was not trained for"
    )
    promote: PromoteConfig = Field(
        PromoteConfig(), title="Promotion gate", description="when a round's model replaces the champion"
    )
    runtime: RuntimeConfig = Field(
        RuntimeConfig(), title="Runtime", description="speed and hardware: nothing here changes a result"
    )

    @model_validator(mode="after")
    def _measures_on_images_it_does_not_learn_from(self) -> Profile:
        train, benchmark = self.data.train, self.data.benchmark
        if isinstance(train, FolderSource) or train.kind != benchmark.kind:
            return self
        # Not by the number of scenes: a larger drawn data set holds the smaller one's scenes.
        if train.model_dump(exclude={"images"}) == benchmark.model_dump(exclude={"images"}):
            raise ValueError(
                f"data.train and data.benchmark are the same images ({train.kind}, split {train.split}): "
                f"figures measured on training images prove nothing; set data.benchmark.split to another split"
            )
        return self

    @model_validator(mode="after")
    def _stops_where_a_reward_is_zero(self) -> Profile:
        if self.value.terminal == "optimal_stopping" and self.label.shaping not in ("centred", "margin"):
            raise ValueError(
                f"value.terminal optimal_stopping ends where what follows is worth less than 0, and with label.shaping "
                f"{self.label.shaping} 0 is not what ending is worth; set label.shaping to centred"
            )
        return self

    @model_validator(mode="after")
    def _pairs_sentences_of_a_search_that_has_them(self) -> Profile:
        if isinstance(self.finetune, SentinelConfig) and self.search.strategy not in (wanted := sentence_searches()):
            raise ValueError(
                f"finetune.method sentinel pairs next sentences that a search proposed, and search.strategy "
                f"{self.search.strategy} proposes none; set search.strategy to one of {', '.join(wanted)}"
            )
        return self


def available_profiles() -> list[str]:
    """Names of the profiles that ship with the checkout."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name_or_path: str | Path, overrides: Sequence[str] = (), rounds: int | None = None) -> Profile:
    """Read a profile by name or path, lay `a.b=value` overrides over it, and check the whole.

    Raises:
        ProfileError: no such profile, or one that cannot be run; names every field at fault.
    """
    path = _find(str(name_or_path))
    tree = _read(path)
    _check_spelling(overrides)
    for dropped in lay_over(tree, [_parse(override) for override in overrides], Profile):
        log.warning("%s", dropped)
    if rounds is not None:
        tree["rounds"] = rounds
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        raise ProfileError(explain(error, Profile, f"profile {path.stem!r}")) from None


def locate(name: str) -> str:
    """A checkpoint or folder as an absolute path if it exists here or in the checkout; else as it came (a hub id)."""
    for root in (Path.cwd(), CHECKOUT):
        candidate = root / Path(name).expanduser()
        if candidate.exists():
            return str(candidate.resolve())
    return name


def _find(name_or_path: str) -> Path:
    """The profile's file; an error lists the nearest names."""
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise ProfileError(f"no profile file at {path}; shipped profiles: {', '.join(available_profiles())}")
    if name_or_path in RENAMED_PROFILES:
        present = RENAMED_PROFILES[name_or_path]
        log.warning("profile %s is now %s; the former name will be refused one day", name_or_path, present)
        name_or_path = present
    named = PROFILES / f"{name_or_path}.yaml"
    if named.is_file():
        return named
    near = difflib.get_close_matches(name_or_path, available_profiles(), 1, 0.5)
    raise ProfileError(
        f"no profile named {name_or_path!r}{f'; did you mean {near[0]}?' if near else ''}\n"
        f"  shipped: {', '.join(available_profiles())}; a file of your own: give its path"
    )


def _read(path: Path, below: tuple[Path, ...] = ()) -> Tree:
    """A profile's tree, laid over that of the profile that it extends."""
    if path in below:
        raise ProfileError(f"{' extends '.join(map(str, (*below, path)))}: a circle; take one `extends` out")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ProfileError(f"{path} holds a {type(tree).__name__}; a profile is a mapping, see profiles/demo.yaml")
    tree = _present(tree, str(path))
    tree.setdefault("name", path.stem)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    beside = path.parent / f"{parent}.yaml"
    whole = _read(beside if beside.is_file() else _find(str(parent)), (*below, path))
    lay_over(whole, [tree], Profile)
    return whole


def _parse(override: str) -> Tree:
    """`a.b=value` as {a: {b: value}}, the value read as YAML."""
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    if not equals or not dotted or not all(dotted.split(".")):
        raise ProfileError(f"override {override!r}: wanted NAME=VALUE, for example search.candidates=4")
    try:
        tree = nested(dotted, yaml.safe_load(text))
    except yaml.YAMLError:
        raise ProfileError(f"override {override!r}: the value {text!r} is not YAML; quote it for the shell?") from None
    return _present(tree, f"override {override!r}")


def _present(tree: Tree, origin: str) -> Tree:
    """A tree whose former settings have their present names and spelling, before it is laid over another."""
    tree = with_present_names(tree)
    if isinstance(search := tree.get("search"), dict):
        try:
            tree["search"] = present_spelling(search)
        except ValueError as error:
            raise ProfileError(f"{origin}: {error}") from None
    return tree


def _check_spelling(overrides: Sequence[str]) -> None:
    """Overrides are laid one over the other; a former setting and the one that took its place must not both be given."""
    names = [name for override in overrides if (name := override.partition("=")[0].strip()).startswith("search.")]
    try:
        check_spelling([name.removeprefix("search.") for name in names])
    except ValueError as error:
        raise ProfileError(f"overrides: {error}") from None
