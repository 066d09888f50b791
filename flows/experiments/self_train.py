"""Self-training: a policy trained on searched captions, on the best of n, or on its own captions; then a second round."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import first_round
from flows.experiments.contract import Experiment
from flows.experiments.trained import BASE, evidence_of, supervised
from flows.profiles.loading import Profile
from flows.profiles.varied import UNCHECKED_VALUE, varied
from flows.round.guide import RoundGuide, fit_guide
from flows.round.measure import Model, measure
from flows.round.prepare import CaptionContext, prepare_loop, round_draw
from flows.round.train import train_policy
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.configs.search import search_config
from tasks.data.sample import SampleResult, sample
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs

SEARCHED, CHOSEN, OWN = "searched", "best of n", "own greedy"
AGAIN = "searched, round 2"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Three policies trained on the same images, and a second round that continues the first of them."""
    profile = varied(supervised(profile), drift={"questions": 0})
    context = prepare_loop(profile)
    base = measure(context, BASE, context.base)
    specs = {SEARCHED: profile.search.strategy, CHOSEN: "best_of_n", OWN: "greedy"}
    profiles = {
        name: profile.model_copy(update={"search": search_config(profile.search, spec)}) for name, spec in specs.items()
    }
    needs = frozenset[str]().union(*(search_needs(arm_profile.search) for arm_profile in profiles.values()))
    drawn, guide = first_round(context, needs)
    models = [
        trained_as(replace(context, profile=arm_profile), name, guide, drawn) for name, arm_profile in profiles.items()
    ]
    first, *_, own = models
    results = [evidence_of(context, base, [], drift=False)]
    results += [evidence_of(context, model, [base, own] if model is not own else [base]) for model in models]
    again = second_round(profile, first)
    return [*results, evidence_of(context, again, [base, first])]


def trained_as(context: CaptionContext, name: str, guide: RoundGuide, drawn: SampleResult) -> Model:
    """The guide's policy trained on captions of the context's search, then measured."""
    return measure(context, name, context.handle(train_policy(context, guide, drawn)))


def second_round(profile: Profile, first: Model) -> Model:
    """The trained policy trained again, on new images with its own rollouts, rewards, V and searched captions.

    The health check of V is off: rollouts with hardly any error leave V little to rank.
    """
    profile = varied(profile, value=UNCHECKED_VALUE)
    context = prepare_loop(profile)
    drawn = sample(profile.sample, context.source, round_draw(profile, 2), context.base)
    guide = fit_guide(context, first.policy, drawn, search_needs(profile.search))
    return trained_as(context, AGAIN, guide, drawn)


def answer(findings: Findings) -> str:
    """Whether searched captions help beyond the policy's own, what that costs, and what a second round adds."""
    return (
        f"Trained on searched captions, CHAIRi goes from {figure(findings, BASE, 'chair_i')} to "
        f"{figure(findings, SEARCHED, 'chair_i')}; on the best of n to {figure(findings, CHOSEN, 'chair_i')}, on its own "
        f"greedy captions to {figure(findings, OWN, 'chair_i')}. Searched against own captions, CHAIRi is "
        f"{findings.compared(SEARCHED, OWN, 'chair_i')}; Recall against the base "
        f"{findings.compared(SEARCHED, BASE, 'recall')}. A second round: CHAIRi "
        f"{findings.compared(AGAIN, SEARCHED, 'chair_i')}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "ngram_drift", "shared_pairs", "vocabulary_kept", "repetition"),
    plot=Plot("arms", ("chair_i", "recall", "length", "ngram_drift")),
    method="Supervised fine-tuning of the base on captions of the same images, from the profile's search, from "
    "best_of_n with the reward model, or from greedy decoding; all are measured by greedy captions of "
    "the benchmark. Round 2 continues the first policy with rollouts, rewards, V and searched captions of its own.",
)
