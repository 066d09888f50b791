"""Cost of a search: milliseconds, tokens and peak memory of every method, by the number of images in flight."""

from __future__ import annotations

from flows.experiments.bench import Bench, config_of, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from flows.round.guide import guide_for
from storage.artifacts import Table
from storage.schema import Sample
from tasks.analysis.cost import profile_search_cost
from tasks.analysis.findings import Evidence, Findings, line_of
from tasks.data.sample import take
from tasks.report.experiment_figures import Plot

METHODS = ("greedy", "best_of_n", "clip_prm", "visvm", "vimar")
BATCHES = (1, 4, 16, 64)
IMAGES = 64


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Every method at every number of images in flight, on some of the benchmark's images."""
    bench = prepare_bench(profile, METHODS)
    samples = bench.context.benchmark.samples
    part = take.with_label("cost")(samples, count=4 if quick else IMAGES, seed=profile.seed).part
    methods, batches = (METHODS[::3], BATCHES[:2]) if quick else (METHODS, BATCHES)
    return [profiled(bench, method, batch, part) for method in methods for batch in batches]


def profiled(bench: Bench, method: str, batch: int, samples: Table[Sample]) -> Evidence:
    """The cost of a method with `batch` images in flight."""
    name, config = f"{method}@{batch}", config_of(bench, method)
    guide = guide_for(bench.context, bench.guide, config)
    cost = profile_search_cost.with_label(name)(
        config,
        bench.context.base,
        bench.context.benchmark.images,
        samples,
        guide,
        batch_size=batch,
        seed=bench.profile.seed,
        decoding=name,
    )
    return Evidence(name, float(batch), (cost.metrics,))


def answer(findings: Findings) -> str:
    """What batching gains, and what each method costs relative to greedy, in tokens and in time."""
    pieces = []
    for line in findings.lines():
        alone, most = findings.line(line)[0], findings.best("ms", findings.line(line))
        gain = findings.value(alone, "ms") / findings.value(most, "ms")
        pieces.append(
            f"{line} {findings.text(alone, 'ms')} alone, {findings.text(most, 'ms')} with {findings.x[most]:g} in "
            f"flight ({gain:.1f} times as fast, {findings.text(most, 'peak_mib')} at the peak)"
        )
    last = [findings.line(line)[-1] for line in findings.lines()]
    greedy = next(arm for arm in last if line_of(arm) == "greedy")
    ratios = [
        f"{line_of(arm)} {findings.value(arm, 'tokens') / findings.value(greedy, 'tokens'):.1f} times the tokens and "
        f"{findings.value(arm, 'ms') / findings.value(greedy, 'ms'):.1f} times the time"
        for arm in last
        if arm != greedy
    ]
    return (
        f"A caption takes, by method: {'; '.join(pieces)}. Beside greedy at {findings.x[greedy]:g} in flight: "
        f"{'; '.join(ratios)}. Where the time grows more than the tokens, the scorer or the value model takes the "
        "rest."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("ms", "tokens", "prefill_tokens", "value_tokens", "texts_scored", "peak_mib"),
    plot=Plot("lines", ("ms", "peak_mib"), x="images in flight", log=True),
    method="@N: images in flight (runtime.batch_size). Models are loaded and warm; each search runs twice and the "
    "faster run counts. Peak: memory beyond what was allocated before the search: key-value caches, activations, "
    "images. Candidates share their prefix's cache in every method; what that saves is measured in "
    "benchmarks/search_speed.py.",
)
