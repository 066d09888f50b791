"""Self-training: a policy trained on searched captions, on the best of n, or on its own captions; then a second round."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import first_round
from flows.experiments.contract import UNCHECKED_VALUE, Experiment, varied
from flows.experiments.trained import BASE, evidence_of, supervised
from flows.profiles.loading import Profile
from flows.round.guide import RoundGuide, fit_guide
from flows.round.measure import Model, measure
from flows.round.prepare import CaptionContext, prepare_loop, round_draw
from flows.round.train import train_policy
from tasks.analysis.findings import Evidence, Findings
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
    first = (
        f"Greedy captions of the base have a CHAIRi of {findings.text(BASE, 'chair_i')} and a Recall of "
        f"{findings.text(BASE, 'recall')}. Trained on searched captions: CHAIRi {findings.text(SEARCHED, 'chair_i')}, "
        f"{findings.compared(SEARCHED, BASE, 'chair_i')}; Recall {findings.compared(SEARCHED, BASE, 'recall')}; length "
        f"{findings.compared(SEARCHED, BASE, 'length')}."
    )
    chosen = (
        f"On the best of n: CHAIRi {findings.text(CHOSEN, 'chair_i')}, {findings.compared(CHOSEN, BASE, 'chair_i')}."
    )
    control = (
        f"The control, its own greedy captions: CHAIRi {findings.compared(OWN, BASE, 'chair_i')}; so beyond "
        "what training itself does, searched against own captions, CHAIRi is "
        f"{findings.compared(SEARCHED, OWN, 'chair_i')}."
    )
    again = (
        f"A second round from the first: CHAIRi {findings.text(AGAIN, 'chair_i')}, "
        f"{findings.compared(AGAIN, SEARCHED, 'chair_i')} from round 1; Recall "
        f"{findings.compared(AGAIN, SEARCHED, 'recall')}."
    )
    drift = (
        f"Word pairs diverge from the base's by {findings.text(SEARCHED, 'ngram_drift')} after round 1 and "
        f"{findings.text(AGAIN, 'ngram_drift')} after round 2 (control: {findings.text(OWN, 'ngram_drift')}; by chance "
        f"{findings.text(SEARCHED, 'ngram_drift_chance')})."
    )
    return " ".join((first, chosen, control, again, drift))


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "ngram_drift", "shared_pairs", "vocabulary_kept", "repetition"),
    plot=Plot("arms", ("chair_i", "recall", "length", "ngram_drift")),
    method="Supervised fine-tuning of the base on captions of the same images, from the profile's search, from "
    "best_of_n with the reward model, or from greedy decoding; all are measured by greedy captions of "
    "the benchmark. Round 2 continues the first policy with rollouts, rewards, V and searched captions of its own.",
)
