"""Quality of V: its spread, its rank correlation with returns, and how well it ranks true above hallucinated sentences."""

from __future__ import annotations

from flows.experiments.bench import HEAD, VOTE, Bench, arm, prepare_bench, with_settings
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from storage.artifacts import Table
from storage.schema import Value
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.analysis.observe import appraise
from tasks.report.experiment_figures import Plot

V, HEAD_V, PREFIX_V, SCORE = "V", "V of the policy's states", "V of all so far", "score"
RANDOM = "random V"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The profile's V and other kinds, each on the candidates that it chose among; the scorer likewise."""
    bench = prepare_bench(profile, ["visvm"])
    results = [judged(bench, V, f"visvm:{VOTE}", bench.value.values)]
    for name, settings in ((HEAD_V, HEAD), (PREFIX_V, {"state": "prefix"}))[: 1 if quick else 2]:
        other = with_settings(bench, value=settings)
        results.append(judged(other, name, f"visvm:{VOTE}", other.value.values))
    results.append(judged(bench, RANDOM, f"visvm:{VOTE},guide=random", None))
    return [*results, judged(bench, SCORE, f"clip_prm:{VOTE}", None)]


def judged(bench: Bench, name: str, spec: str, values: Table[Value] | None) -> Evidence:
    """A guide judged on the benchmark's candidates and, if it is a V, on held-out rollouts."""
    searched = arm(bench, spec, f"{spec} by {name}")
    appraised = appraise.with_label(name)(
        bench.profile.evaluate,
        searched.result.search_trace,
        bench.context.benchmark.samples,
        bench.context.annotations,
        values=values,
        subject="base",
        decoding=searched.name,
    )
    return Evidence(name, None, (appraised.metrics,))


def answer(findings: Findings) -> str:
    """Whether V ranks better than chance, and which V is best."""
    kinds = [name for name in (V, HEAD_V, PREFIX_V) if findings.has(name, "auc")]
    best, rank = findings.best("auc", kinds), findings.cell(V, "rank_within")
    collapsed = " (not surely above 0: it has collapsed)" if rank and not rank.low > 0 else ""
    others = f" Of {len(kinds)} kinds of V the best is {best}: {figure(findings, best, 'auc')}." if kinds[1:] else ""
    return (
        f"Within an image V ranks a true sentence above a hallucinated one with probability {findings.text(V, 'auc')}; the "
        f"scorer {figure(findings, SCORE, 'auc')}, random numbers {figure(findings, RANDOM, 'auc')}. With what followed on "
        f"held-out images its rank correlation is {findings.text(V, 'rank_within')}{collapsed}.{others}"
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("auc", "auc_pooled", "auc_within", "rank_within", "spearman", "spread", "td_error"),
    plot=Plot("lines", ("auc_pooled", "spearman"), x="position of the sentence (0: the first)"),
    method="AUC: true against hallucinated candidate sentences that a search (end: vote) chose among on the "
    "benchmark, within an image, and by position over all images; AUC of returns and rank correlation: V and the "
    "Monte-Carlo return of different sentences at one position of one held-out training image, which is what the health "
    "check reads; pooled: over all of them. Intervals resample images.",
)
