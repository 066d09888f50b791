"""The unit that a search chooses among where a policy answers in stages: sentences, stages or whole answers (LLaVA-CoT)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flows.experiments.bench import Arm, tokens_of, widest_of
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from flows.profiles.varied import varied
from flows.round.answer_bench import AnswerContext, accuracy_of, plain_answers, questions_about
from flows.round.answers import own_answers, prepare_answers
from flows.round.guide import RoundGuide, guide_for
from flows.round.measure import compared
from flows.round.prepare import round_draw
from tasks.analysis.findings import Evidence, Findings, each, figure, verdicts
from tasks.configs.search import extended, search_config
from tasks.report.experiment_figures import Plot
from tasks.search.search import search

GREEDY, OWN = "greedy staged", "stage_beam"  # the former unlike `base greedy`, the answers without the instruction
WIDEST = 4  # candidates of the stage beam whose work is the budget
WIDTHS, CAPTIONS = (1, 2, 4), (2, 4, 8)
RIVALS = (  # unit, search, the setting of its width, the widest tried
    ("token", "beam", "candidates", 8),
    ("sentence", "clip_prm:end=policy", "candidates", 8),
    ("stage", "swires", "captions", 8),
    ("whole answer", "best_of_n:by=judge", "candidates", 12),
    ("whole answer", "best_of_n:by=score", "candidates", 12),
    ("whole answer", "majority_vote", "candidates", 12),
)


@dataclass(frozen=True)
class AnswerBench:
    """What all arms share: the questions, the base policy, and what guides a search of its answers."""

    context: AnswerContext
    guide: RoundGuide | None


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """One search of each unit within the stage beam's tokens; then widths of the stage beam and SWIRES' captions."""
    bench = prepared(profile)
    greedy = measured(bench, "greedy", GREEDY)
    own = named("stage", at_width(bench, OWN, "width", WIDEST))
    budget = tokens_of(own)
    results = [evidence(bench, greedy), evidence(bench, own, [greedy])]
    for grain, spec, key, most in RIVALS[1:4] if quick else RIVALS:
        rival = widest(bench, spec, key, range(2, most + 1, 2), budget)
        results.append(evidence(bench, named(grain, rival), [greedy, own]))
    if quick:
        return results
    for spec, key, widths in (
        (OWN, "width", WIDTHS),
        (f"{OWN}:pairs=random", "width", WIDTHS[1:]),
        ("swires", "captions", CAPTIONS),
    ):
        results += [evidence(bench, at_width(bench, spec, key, width), [greedy]) for width in widths]
    return results


def named(grain: str, arm: Arm) -> Arm:
    """The arm, with the unit in its name."""
    return replace(arm, name=f"{grain}: {arm.name}", x=None)


def prepared(profile: Profile) -> AnswerBench:
    """The benchmark's questions, and the base's own answers to the first round's, on whose scores SWIRES calibrates."""
    context, base = prepare_answers(profile)
    calibrating = varied(profile, staged={"teacher": {"kind": "self"}}).model_copy(
        update={"search": search_config(profile.search, "swires")}
    )
    questions = questions_about(profile, context.source, round_draw(profile, 1), context.base)
    attempt = own_answers(replace(context, profile=calibrating), base.policy, questions)
    return AnswerBench(context, attempt.guide)


def measured(bench: AnswerBench, spec: str, name: str, x: float | None = None) -> Arm:
    """The base's answers to the benchmark's questions by a search, with the instruction to answer in stages; and how right."""
    context, questions = bench.context, bench.context.questions
    config = search_config(context.profile.search, spec)
    result = search.with_label(name)(
        config,
        context.base,
        context.benchmark.images,
        questions.staged.samples,
        guide_for(context, bench.guide, config),
        seed=context.profile.seed,
        name=name,
    )
    plain = plain_answers(context.profile, [result.captions], questions, name).plain
    return Arm(name, x, result, accuracy_of(context, plain, "base", name))


def at_width(bench: AnswerBench, spec: str, key: str, width: int) -> Arm:
    """An arm at a width, called SPEC@WIDTH."""
    return measured(bench, extended(spec, f"{key}={width}"), f"{spec}@{width}", float(width))


def widest(bench: AnswerBench, spec: str, key: str, widths: Iterable[int], budget: float | None) -> Arm:
    """The widest arm within the budget (decoded tokens an answer); if none is, the narrowest. In a plan the widest."""
    return widest_of(lambda width: at_width(bench, spec, key, width), widths, budget)


def evidence(bench: AnswerBench, arm: Arm, against: Sequence[Arm] = ()) -> Evidence:
    """Accuracy, work, and paired differences by question."""
    pairs = {
        other.name: compared(
            bench.context, arm.scores.scores, other.scores.scores, f"{arm.name} - {other.name}"
        ).comparisons
        for other in against
    }
    return Evidence(arm.name, arm.x, (arm.scores.metrics,), pairs, arm.result.counters)


def answer(findings: Findings) -> str:
    """Which unit is best at the same work, and what width gains."""
    own, *rivals = (arm for arm in findings.arms if ": " in arm)
    best = findings.best("accuracy", [own, *rivals])
    text = (
        f"At the same work most answers are right with {best}, {figure(findings, best, 'accuracy')} (greedy "
        f"{figure(findings, GREEDY, 'accuracy')}). Beside {own}, {verdicts(findings, rivals, own, 'accuracy')}."
    )
    widths = [arm for line in (OWN, f"{OWN}:pairs=random", "swires") for arm in findings.line(line)]
    return f"{text} By width: {each(findings, widths, 'accuracy')}." if widths else text


ON_ANSWERS = Experiment(
    run=run,
    answer=answer,
    columns=("accuracy", "accuracy_what", "accuracy_how_many", "accuracy_where", "staged", "words", "tokens", "ms"),
    plot=Plot("arms", ("accuracy", "tokens")),
    method="The base answers the benchmark's questions with the instruction to answer in stages. Each search has the largest "
    f"width whose answers take no more decoded tokens than a stage beam of {WIDEST}, or the narrowest tried; verdicts of "
    "the policy as judge count as tokens. pairs=random: pairs drawn at random, each judged once, as in the paper; else each "
    "in both orders.",
)
