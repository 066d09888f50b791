"""Self-training: a policy tuned on what the search found, on the best of n, or on its own captions; then a second round."""

from __future__ import annotations

from flows.experiments.contract import Experiment, varied
from flows.experiments.trained import BASE, told
from flows.profiles.loading import Profile
from flows.round.guide import lay_ground, learn_guide
from flows.round.improvement import Model, measure
from flows.round.train import by_captions
from tasks.analysis.findings import Evidence, Findings
from tasks.configs.search import search_config
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs

SEARCHED, CHOSEN, OWN = "searched", "best of n", "own greedy"
AGAIN = "searched, round 2"
UNJUDGED = {"min_spearman": -1.0, "min_spread": 0.0}


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Three policies from the same images, and a second round from the first of them."""
    profile = varied(profile, finetune={"method": "sft"}, drift={"questions": 0})
    ground, policy = lay_ground(profile)
    base = measure(profile, ground, BASE, policy)
    ways = {name: profile.model_copy(update={"search": search_config(profile.search, spec)}) for name, spec in (
        (SEARCHED, profile.search.strategy), (CHOSEN, "best_of_n"), (OWN, "greedy"))}  # fmt: skip
    needs = frozenset[str]().union(*(search_needs(way.search) for way in ways.values()))
    drawn, guide = learn_guide(profile, ground, policy, 1, needs)
    models = [
        measure(way, ground, name, by_captions(way, ground, policy, guide, drawn)["policy"])
        for name, way in ways.items()
    ]
    first, *_, own = models
    found = [told(profile, ground, base, [], drift=False)]
    found += [told(profile, ground, one, [base, own] if one is not own else [base]) for one in models]
    again = second_round(profile, quick, first)
    return [*found, told(profile, ground, again, [base, first])]


def second_round(profile: Profile, quick: bool, first: Model) -> Model:
    """The tuned policy's own answers, rewards, V and searched captions of new images, learned.

    A V that can't rank what hardly holds an error any more is measured and not refused.
    """
    profile = varied(profile, value=UNJUDGED)
    ground, _ = lay_ground(profile)
    drawn, guide = learn_guide(profile, ground, first.policy, 2, search_needs(profile.search))
    tuned = by_captions(profile, ground, first.policy, guide, drawn)
    return measure(profile, ground, AGAIN, tuned["policy"])


def answer(found: Findings) -> str:
    """Whether search teaches anything that one's own captions don't, what it costs, and what a second round adds."""
    first = (
        f"Greedy captions of the base have a CHAIRi of {found.said(BASE, 'chair_i')} and a Recall of "
        f"{found.said(BASE, 'recall')}. Tuned on searched captions: CHAIRi {found.said(SEARCHED, 'chair_i')}, "
        f"{found.compared(SEARCHED, BASE, 'chair_i')}; Recall {found.compared(SEARCHED, BASE, 'recall')}; length "
        f"{found.compared(SEARCHED, BASE, 'length')}."
    )
    chosen = f"On the best of n: CHAIRi {found.said(CHOSEN, 'chair_i')}, {found.compared(CHOSEN, BASE, 'chair_i')}."
    control = (
        f"The control, its own greedy captions: CHAIRi {found.compared(OWN, BASE, 'chair_i')}; so beyond "
        f"what tuning itself does, searched against own captions, CHAIRi is {found.compared(SEARCHED, OWN, 'chair_i')}."
    )
    again = (
        f"A second round from the first: CHAIRi {found.said(AGAIN, 'chair_i')}, "
        f"{found.compared(AGAIN, SEARCHED, 'chair_i')} from round 1; Recall {found.compared(AGAIN, SEARCHED, 'recall')}."
    )
    drift = (
        f"Word pairs diverge from the base's by {found.said(SEARCHED, 'ngram_drift')} after round 1 and "
        f"{found.said(AGAIN, 'ngram_drift')} after round 2 (control: {found.said(OWN, 'ngram_drift')}; by chance "
        f"{found.said(SEARCHED, 'ngram_drift_chance')})."
    )
    return " ".join((first, chosen, control, again, drift))


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "ngram_drift", "shared_pairs", "vocabulary_kept", "repetition"),
    plot=Plot("arms", ("chair_i", "recall", "length", "ngram_drift")),
    method="Supervised fine-tuning of the base on captions of the same images, found by the profile's search, by "
    "best_of_n with the reward model, or greedily by the base itself; all are measured by greedy captions of "
    "the benchmark. Round 2 goes on from the first with answers, rewards, V and searched captions of its own.",
)
