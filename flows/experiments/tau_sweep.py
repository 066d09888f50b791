"""The rewards' margin: its value, its penalty, and the published forms of the shaped reward."""

from __future__ import annotations

from flows.experiments.bench import ACTION, HEAD, Arm, Bench, arm, evidence, prepare_bench, with_settings
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, verdicts
from tasks.report.experiment_figures import Plot

QUANTILES = (0.0, 0.05, 0.1, 0.17, 0.3, 0.5)
ALPHAS = (0.0, 0.5, 1.0, 2.0)
SHAPES = ("none", "published_equation", "zero_below", "floor", "continuous")
OWN = 0.17
PRM, VIMAR, VALUE, ALPHA = "CLIP-PRM", "ViMaR by score", "VisVM by V", "VisVM by V, alpha"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The margin as a quantile of the scores, for three searches; then its penalty and form, for V."""
    bench = prepare_bench(profile)
    reference = value_arm(bench, f"{VALUE}@{OWN:g}", OWN)
    results = []
    for q in QUANTILES[1::2] if quick else QUANTILES:
        variant = with_settings(bench, value=HEAD, label={"tau": {"kind": "quantile", "q": q}})
        facts = {"tau": variant.rewards.margin, "below_tau": variant.rewards.below_margin}
        prm = arm(variant, f"clip_prm:{ACTION}", f"{PRM}@{q:g}", q)
        results.append(evidence(variant, prm, with_trace=True, facts=facts))
        results.append(evidence(variant, arm(variant, "vimar:by=score", f"{VIMAR}@{q:g}", q), with_trace=True))
        own = reference if q == OWN else value_arm(bench, f"{VALUE}@{q:g}", q)
        results.append(evidence(bench, own, [reference], with_trace=True))
    for alpha in ALPHAS[::3] if quick else ALPHAS:
        measured = value_arm(bench, f"{ALPHA}@{alpha:g}", alpha, alpha=alpha)
        results.append(evidence(bench, measured, [reference], with_trace=True))
    for shape in SHAPES[:1] if quick else SHAPES:
        results.append(
            evidence(bench, value_arm(bench, f"VisVM by V, {shape}", None, shaping=shape), [reference], with_trace=True)
        )
    return results


def value_arm(bench: Bench, name: str, x: float | None, **settings: object) -> Arm:
    """VisVM by a V of rewards shaped so; the margin is the quantile `x` on the line `VALUE`, else `OWN`."""
    q = x if name.startswith(f"{VALUE}@") else OWN
    label = {"shaping": "margin", "alpha": 1.0, "tau": {"kind": "quantile", "q": q}, **settings}
    return arm(with_settings(bench, value=HEAD, label=label), f"visvm:{ACTION}", name, x)


def answer(findings: Findings) -> str:
    """How CHAIR and Recall change with the margin, and whether form and penalty make a difference."""
    steps = []
    for line in (PRM, VIMAR, VALUE):
        first, last = findings.line(line)[0], findings.line(line)[-1]
        moves = [
            f"{title} from {figure(findings, first, metric)} to {figure(findings, last, metric)}"
            for title, metric in (("CHAIRi", "chair_i"), ("Recall", "recall"))
        ]
        steps.append(f"{line} {' and '.join(moves)}")
    forms = [arm for arm in findings.arms if arm.startswith(f"{VALUE}, ") and arm != f"{ALPHA}@1"]
    return (
        f"From the lowest margin to the highest, each search goes: {'; '.join(steps)}. Beside the default form of the "
        f"reward, other penalties and forms are {verdicts(findings, forms, f'{VALUE}@{OWN:g}')}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=(
        "chair_i",
        "recall",
        "length",
        "tau",
        "below_tau",
        "refined",
        "changed",
        "sentences",
        "stop: end_value",
    ),
    plot=Plot("lines", ("chair_i", "recall", "length"), x="margin: quantile of the scores", only=(PRM, VIMAR, VALUE)),
    method="Where the policy proposes to end, CLIP-PRM does if no candidate is above the margin, and VisVM if none is worth "
    "more than 0, or than the margin where rewards have another form; V is a head on the policy's states, of these "
    "rewards. ViMaR replaces sentences under the margin. Penalty and form affect VisVM only.",
)
