"""Cost of a search: milliseconds, tokens and peak memory, by the number of images in flight and by image resolution."""

from __future__ import annotations

from flows.experiments.bench import Bench, config_of, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from flows.round.guide import guide_for
from storage.artifacts import Table
from storage.schema import Image, Sample
from tasks.analysis.cost import profile_search_cost
from tasks.analysis.findings import Evidence, Findings, figure, line_of, listed
from tasks.analysis.resize import resize
from tasks.data.sample import take
from tasks.report.experiment_figures import Plot

METHODS = ("greedy", "best_of_n", "clip_prm", "visvm", "vimar")
BATCHES = (1, 4, 16, 64)
IMAGES = 64
RESIZED, FACTORS, IN_FLIGHT = ("greedy", "visvm"), (0.5, 1.0, 2.0), 16
RESOLUTION = " by image size"  # behind a method's name: its line over the images' resolution


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Every method at every number of images in flight, on some of the benchmark's images; two on resized images."""
    bench = prepare_bench(profile, METHODS)
    samples = bench.context.benchmark.samples
    part = take.with_label("cost")(samples, count=4 if quick else IMAGES, seed=profile.seed).part
    methods, batches = (METHODS[::3], BATCHES[:2]) if quick else (METHODS, BATCHES)
    images = bench.context.benchmark.images
    results = [profiled(bench, method, f"{method}@{n}", n, images, part, n) for method in methods for n in batches]
    for factor in FACTORS[: 2 if quick else None]:
        resized = resize.with_label(f"{factor:g}")(images, part, factor=factor).images
        for method in RESIZED[: 1 if quick else None]:
            name = f"{method}{RESOLUTION}@{factor:g}"
            results.append(profiled(bench, method, name, factor, resized, part, batches[-1] if quick else IN_FLIGHT))
    return results


def profiled(
    bench: Bench, method: str, name: str, x: float, images: Table[Image], samples: Table[Sample], batch: int
) -> Evidence:
    """The cost of a method on these images with `batch` of them in flight, as the arm `name` at `x`."""
    config = config_of(bench, method)
    guide = guide_for(bench.context, bench.guide, config)
    cost = profile_search_cost.with_label(name)(
        config,
        bench.context.base,
        images,
        samples,
        guide,
        batch_size=batch,
        seed=bench.profile.seed,
        decoding=name,
    )
    return Evidence(name, float(x), (cost.metrics,))


def answer(findings: Findings) -> str:
    """What batching gains, what each method costs relative to greedy, and what resolution costs."""
    lines = {line: findings.line(line) for line in findings.lines()}
    methods = [line for line in lines if not line.endswith(RESOLUTION)]
    most = lines["greedy"][-1]
    ratios = [
        f"{line} {_times(findings, lines[line][-1], most, 'tokens')} times the tokens and "
        f"{_times(findings, lines[line][-1], most, 'ms')} times the time"
        for line in methods
        if line != "greedy"
    ]
    gains = [f"{line} {_times(findings, lines[line][0], lines[line][-1], 'ms')}" for line in methods]
    sizes = [points for line, points in lines.items() if line.endswith(RESOLUTION)]
    small, large = sizes[-1][0], sizes[-1][-1]
    return (
        f"Beside greedy ({figure(findings, most, 'ms')} a caption) with {findings.x[most]:g} images in flight, "
        f"{listed(ratios)}. All of these in flight instead of {findings.x[lines['greedy'][0]]:g} makes a caption faster "
        f"by a factor of {listed(gains)}. Images of {findings.x[large]:g} instead of {findings.x[small]:g} times their "
        f"sides take {line_of(large).removesuffix(RESOLUTION)} {_times(findings, large, small, 'prefill_tokens')} times "
        f"the prefill and {_times(findings, large, small, 'ms')} times the time."
    )


def _times(findings: Findings, arm: str, other: str, metric: str) -> str:
    """How many times as much one arm has as another."""
    below = findings.value(other, metric)
    return f"{findings.value(arm, metric) / below:.1f}" if below else "unknown"


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("ms", "tokens", "prefill_tokens", "value_tokens", "texts_scored", "peak_mib"),
    plot=Plot("lines", ("ms", "peak_mib"), x="images in flight", log=True, only=METHODS),
    more_plots=(
        Plot(
            "lines",
            ("ms", "prefill_tokens", "peak_mib"),
            x="side of the images, times their own",
            only=tuple(f"{method}{RESOLUTION}" for method in RESIZED),
        ),
    ),
    method="@N: images in flight (runtime.batch_size). By image size, @F: images with F times their sides, 16 in flight; "
    "what the policy's processor makes of them is its own affair, and some bring all images to one size. Models are "
    "loaded and warm; each search runs twice and the faster run counts. Peak: memory beyond what was allocated before "
    "the search: key-value caches, activations, images. Candidates share their prefix's cache in every method; what "
    "that saves is measured in benchmarks/search_speed.py.",
)
