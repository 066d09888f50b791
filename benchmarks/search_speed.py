"""How fast is guided search? The engine against `generate` with a kept cache, `generate`, and the released call shape.

    python -m benchmarks.search_speed             writes benchmarks/results/search_speed.json, ends with one line of JSON

One process, one thread, repetitions interleaved, medians of processor seconds a caption; wall seconds and the models' work
stand beside them. All shapes must give the same captions. Two cases:

    llava-224    a LLaVA of random weights with 196 image tokens, 20 tokens a sentence, 5 sentences. Its ratios are the
                 headline, for the demo's nine image tokens hide what is saved by reading an image once.
    demo         the shipped policy

All llava-224 captions draw the same number of tokens, so shapes that work on one image at a time search fewer of them.
Then ViMaR against VisVM on the demo with a trained value model. What the figures are not: a 7B model on a GPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import search_quality
from benchmarks.measured import RESULTS
from benchmarks.search_cases import demo_case, llava_case
from benchmarks.search_shapes import IN_FLIGHT, PADDED, SHAPES, Case, Padding, Ran, measured
from tasks.core.models.value import ValueModel
from tasks.core.search.contract import SearchResult, Task
from tasks.core.search.requests import ANSWER, Search, propose

# Images a repetition: those of the slow shapes of llava-224 are some of the engine's.
IMAGES = {
    "demo": dict.fromkeys(SHAPES, IN_FLIGHT),
    "llava-224": {
        "kept_cache": 2,
        "kept_cache_8": IN_FLIGHT,
        "released": 1,
        "generate": 2,
        "generate_8": IN_FLIGHT,
        "engine_1": 2,
        "engine": IN_FLIGHT,
    },
}


def sampled(task: Task) -> Search[SearchResult]:
    """Whole answers, of which none is chosen: what the same number of tokens costs without a search."""
    settings, result = task.settings, SearchResult()
    answers = yield from propose(
        None, settings.temperatures, max_tokens=settings.max_new_tokens, until=ANSWER, keep=False
    )
    result.record(0, answers, {}, None)
    return result.finish("sampled")


def shapes(
    name: str, case: Case, repeats: int, besides: Mapping[str, Callable[[], Ran]] | None = None
) -> dict[str, Any]:
    """Every shape `repeats` times in turn, with what is to be measured beside them, and once the released one padded.

    Raises:
        RuntimeError: if two shapes give different captions.
    """
    work = {
        shape: partial(measured, shape, replace(case, images=case.images[:count]))
        for shape, count in IMAGES[name].items()
    }
    runs = interleaved({**work, **(besides or {})}, repeats)
    expected = runs["engine"][0].captions
    for shape in SHAPES:
        for run in runs[shape]:
            if run.captions != expected[: len(run.captions)]:
                raise RuntimeError(f"{name}: the shape {shape} has other captions than the engine: not the same search")
    results: dict[str, Any] = {"shapes": {shape: summary(repeated) for shape, repeated in runs.items()}}
    a_caption = {shape: figures["cpu_per_caption"] for shape, figures in results["shapes"].items()}
    results["vs_hf_kept_cache_one_image"] = a_caption["kept_cache"] / a_caption["engine_1"]
    results["vs_hf_kept_cache_eight_images"] = a_caption["kept_cache_8"] / a_caption["engine"]
    results["padded"] = padded(case, expected)
    results["vs_released_shape"] = a_caption["released"] / a_caption["engine"]
    results["vs_released_shape_padded"] = results["vs_released_shape"] * results["padded"]["factor"]
    results["vs_hf_generate"] = a_caption["generate"] / a_caption["engine"]
    results["vs_hf_generate_batched8"] = a_caption["generate_8"] / a_caption["engine"]
    results["vs_hf_generate_one_image"] = a_caption["generate"] / a_caption["engine_1"]
    return results


def padded(case: Case, expected: Sequence[str]) -> dict[str, Any]:
    """The released shape on one image with value inputs of 2,560 tokens, against the same without."""
    assert isinstance(case.value, ValueModel)
    single = replace(case, images=case.images[:1])
    plain = measured("released", single)
    narrow = case.value.policy
    case.value.policy = Padding(narrow.model, narrow.processor, narrow.digest)
    try:
        wide = measured("released", single)
    finally:
        case.value.policy = narrow
    if wide.captions != [*expected[:1]]:
        raise RuntimeError("padding the value model's input changed the caption: not the same search")
    return {"tokens": PADDED, "factor": wide.cpu / plain.cpu, "with": summary([wide]), "without": summary([plain])}


def against_sampling(measured_shapes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds a drawn token of guided search over those of drawing whole answers, all by the engine.

    For a value model of the policy's own size, and for a head on the policy's states.
    """
    a_token = {shape: figures["cpu_per_drawn_token"] for shape, figures in measured_shapes.items()}
    return {
        "search_vs_sampling": a_token["engine"] / a_token["sampling"],
        "search_vs_sampling_states": a_token["engine_states"] / a_token["sampling"],
    }


def interleaved(work: Mapping[str, Callable[[], Ran]], repeats: int) -> dict[str, list[Ran]]:
    """Each piece of work once, then all again: what else the machine does meanwhile slows all alike."""
    runs: dict[str, list[Ran]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, repetition in work.items():
            runs[name].append(repetition())
    return runs


def summary(runs: Sequence[Ran]) -> dict[str, Any]:
    """Medians with their range, and the work, which is the same each time."""
    cpu = [run.cpu for run in runs]
    captions = len(runs[0].captions)
    return {
        "captions": captions,
        "repeats": len(runs),
        "cpu_per_caption": statistics.median(cpu) / captions,
        "cpu_per_drawn_token": statistics.median(cpu) / runs[0].work["drawn_tokens"],
        "cpu_seconds": [min(cpu), statistics.median(cpu), max(cpu)],
        "wall_seconds": statistics.median(run.wall for run in runs),
        "work": runs[0].work,
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dtype": "float32",
    }


RATIOS = (
    "vs_hf_kept_cache_one_image",  # the strongest baseline first
    "vs_hf_kept_cache_eight_images",
    "vs_released_shape",
    "vs_released_shape_padded",
    "vs_hf_generate",
    "vs_hf_generate_batched8",
)


def headline(results: Mapping[str, Any]) -> dict[str, Any]:
    """The last line: ratios of llava-224, the demo's beside them."""
    line: dict[str, Any] = {}
    for name in RATIOS:
        line[name] = results["llava-224"][name]
        line[f"{name}_demo"] = results["demo"][name]
    for name in ("search_vs_sampling", "search_vs_sampling_states"):
        line[name] = results["llava-224"][name]
    line |= search_quality.ratios(results["quality"])
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in line.items()}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=100, help="test scenes of ViMaR against VisVM")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("tasks.core.engine.fallback").setLevel(logging.ERROR)  # it warns that `generate` is slow
    results: dict[str, Any] = {"machine": machine(), "repeats": options.repeats}
    results["demo"] = shapes("demo", demo_case(IN_FLIGHT), options.repeats)
    case, states = llava_case(IN_FLIGHT), llava_case(IN_FLIGHT, states=True)
    besides = {
        "sampling": partial(measured, "engine", case, sampled),
        "engine_states": partial(measured, "engine", states),
    }
    results["llava-224"] = shapes("llava-224", case, options.repeats, besides)
    results["llava-224"] |= against_sampling(results["llava-224"]["shapes"])
    with tempfile.TemporaryDirectory() as home:
        os.environ["VISLOOP_HOME"] = home
        results["quality"] = search_quality.measure(options.scenes, options.repeats)
    results["headline"] = headline(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["headline"]))


if __name__ == "__main__":
    main()
