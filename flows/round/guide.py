"""What guides a round's search: rewards of the policy's own answers, and V fitted to them. Order only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flows.round.prepare import LoopContext
from flows.round.rewards import objects_in, score_answers
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Image, Reward, Rollout, Sample
from tasks.configs.reward import FixedTau
from tasks.configs.search import SearchConfig
from tasks.data.sample import SampleResult, annotate
from tasks.models.handles import UNGUIDED, Guide, PolicyHandle, ValueHandle
from tasks.reward.score import score
from tasks.reward.shape_rewards import RewardsResult, shape_rewards
from tasks.rollout.guided import guided_rollouts
from tasks.rollout.reference import reference_answers
from tasks.rollout.rollout import rollout
from tasks.search.search import CaptionsResult, search, search_needs
from tasks.value.train_value import ValueResult, train_value


@dataclass(frozen=True)
class Answers:
    """Answers with their sentences' rewards."""

    rollouts: Table[Rollout]
    rewards: Table[Reward]


@dataclass(frozen=True)
class RoundGuide:
    """What a policy's rewarded answers give a search."""

    policy: PolicyHandle  # who answered; V's backbone
    rollouts: Table[Rollout]
    scorer: ScorerCheckpoint  # gives a candidate the score that the answers' sentences have
    rewards: RewardsResult
    value: ValueResult | None = None
    learned: tuple[Answers, ...] = ()  # what V learned of

    @property
    def value_handle(self) -> ValueHandle | None:
        """V as other stages load it; None where the round has none."""
        return None if self.value is None else ValueHandle(self.value.value, self.policy)


def guide_for(
    context: LoopContext, guide: RoundGuide | None, config: SearchConfig, images: Table[Image] | None = None
) -> Guide:
    """What this search is guided by, and nothing else: the rest must not be part of its key.

    `images`: those that are searched, if not the benchmark's; a search may need to know which objects are in them.
    """
    needs = search_needs(config)
    objects = objects_in(context, images or context.benchmark.images) if "objects" in needs else None
    if guide is None:
        return replace(UNGUIDED, scorer=context.scorer if "scorer" in needs else None, objects=objects)
    rewards, value = guide.rewards, guide.value if "value" in needs else None
    return Guide(
        scorer=guide.scorer if "scorer" in needs else None,
        margin=rewards.margin if needs & {"scorer", "margin", "weak"} else None,
        value=None if value is None or "held_out" in needs else guide.value_handle,
        held_out=None if value is None or not needs & {"weak", "held_out"} else value.values,
        answer_scores=(rewards.answer_mean, rewards.answer_std) if "answers" in needs else None,
        end_value=rewards.end_value if "end_value" in needs else None,
        objects=objects,
    )


def fit_guide(context: LoopContext, policy: PolicyHandle, drawn: SampleResult, needs: frozenset[str]) -> RoundGuide:
    """Roll out the policy's own answers, reward their sentences, and fit V to them if it is needed."""
    profile, images, samples = context.profile, drawn.images, drawn.samples
    rollouts = rollout.over_shards(profile.rollout, policy, images, samples, seed=profile.seed).rollouts
    scored = score_answers(context, images, samples, rollouts)
    guide = RoundGuide(policy, rollouts, scored.scorer, shape_rewards(profile.label, scored.scored))
    return fit_value(context, guide, drawn) if "value" in needs else guide


def fit_value(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> RoundGuide:
    """The guide with V of the policy's own answers; `value.guided_rounds` times V learns from captions searched with it, too.

    Both sets, for a search chooses among all that the policy may propose: guided captions alone hold hardly a bad sentence.
    """
    own = [Answers(guide.rollouts, guide.rewards.rewards), *annotated_answers(context, drawn)]
    answers, rounds = own, context.profile.value.guided_rounds
    for number in range(rounds + 1):
        # The last one has the plain name.
        name = "" if number == rounds else f"before guided-{number + 1}"
        guide = replace(guide, value=value_of(context, guide.policy, drawn, answers, name), learned=tuple(answers))
        if number < rounds:
            answers = [*own, guided_answers(context, guide, drawn, number + 1)]
    return guide


def annotated_answers(context: LoopContext, drawn: SampleResult) -> list[Answers]:
    """The training images' annotated captions at a constant reward (ViMaR section 3.2), if the profile wants them."""
    profile = context.profile
    if profile.value.ground_truth is None:
        return []
    truth = annotate.with_label("train")(context.source, drawn.images).annotations
    reference = reference_answers(drawn.samples, truth, reward=profile.value.ground_truth, seed=profile.seed)
    return [Answers(reference.rollouts, reference.rewards)]


def value_of(
    context: LoopContext, policy: PolicyHandle, drawn: SampleResult, answers: Sequence[Answers], label: str
) -> ValueResult:
    """V of these answers."""
    config = context.profile.value
    return train_value.with_label(label)(
        # Its inputs state whose answers these are, and how many sets.
        config.model_copy(update={"guided_rounds": 0, "ground_truth": None}),
        policy,
        drawn.images,
        drawn.samples,
        [part.rewards for part in answers],
        # What it doesn't read must not be part of its key.
        rollouts=[part.rollouts for part in answers]
        if config.reads == "policy_states" or config.state == "prefix"
        else None,
        seed=context.profile.seed,
    )


def guided_answers(context: LoopContext, guide: RoundGuide, drawn: SampleResult, number: int) -> Answers:
    """The round's samples searched under the guide, rewarded with the margin that its own answers were."""
    profile, label = context.profile, f"guided-{number}"
    # Not validated: in a plan the margin is not known yet, and an installed reward may have any scale.
    margin = FixedTau.model_construct(value=guide.rewards.margin)
    searched = search_captions(context, guide, drawn.images, drawn.samples, label)
    answers = guided_rollouts.with_label(label)(searched.captions, number=number, seed=profile.seed)
    scored = score.with_label(label).over_shards(guide.scorer, drawn.images, drawn.samples, answers.rollouts)
    rewards = shape_rewards.with_label(label)(profile.label.model_copy(update={"tau": margin}), scored.scored)
    return Answers(answers.rollouts, rewards.rewards)


def search_captions(
    context: LoopContext, guide: RoundGuide, images: Table[Image], samples: Table[Sample], label: str = ""
) -> CaptionsResult:
    """Captions of `samples` by the profile's search, by the policy that the guide was fitted for."""
    config = context.profile.search
    return search.with_label(label).over_shards(
        config, guide.policy, images, samples, guide_for(context, guide, config, images), seed=context.profile.seed
    )
