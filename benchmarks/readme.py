"""Fills the marked blocks of README.md and docs/results.md from benchmarks/results: `python -m benchmarks.readme`.

    README.md          <!-- demo-run:begin --> ... <!-- demo-run:end -->    demo-run.json: what a run printed, how long it took
                       methods      methods.json, and the controls of self_training.json and methods_reference.json
    docs/results.md    loop         self_training.json, overhead.json
                       gates        methods_reference.json, value_speed.json
                       search       strategies.json, search_speed.json
                       vimar        vimar_work.json

No figure in them is typed by hand; a test compares the pages with the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import vimar_page
from benchmarks.measured import RESULTS, fill_blocks
from benchmarks.methods_tables import short_table
from benchmarks.self_training import table

CHECKOUT = Path(__file__).resolve().parent.parent
NOT_MEASURED = "*Not measured yet: `python -m benchmarks.self_training` writes these figures.*"
VIMAR_NOT_MEASURED = NOT_MEASURED.replace("self_training", "vimar_work")


def loop_block(results: Path) -> str:
    """The loop's table, the gate's decisions, and the cost of orchestration."""
    parts = []
    loop, overhead = load(results, "self_training"), load(results, "overhead")
    if loop is not None:
        parts += [table(loop["summary"], loop["scenes"], loop["seeds"]).strip(), gate(loop["runs"])]
    if overhead is not None:
        parts.append(orchestration(overhead))
    return "\n\n".join(parts) or NOT_MEASURED


def load(results: Path, name: str) -> Any:
    """A results file's content; None if it is not there."""
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def gate(runs: Sequence[Mapping[str, Any]]) -> str:
    """In how many seeds each round's model was promoted."""
    counts = []
    for number in range(len(runs[0]["decisions"])):
        promoted = sum(": promoted:" in run["decisions"][number] for run in runs)
        counts.append(f"round {number + 1} in {promoted} of {len(runs)} seeds")
    return f"The gate promoted {', '.join(counts)}."


def orchestration(overhead: Mapping[str, Any]) -> str:
    """What the flow adds to plain calls of the same stages."""
    same = "with the same digests" if overhead["same_digests"] else "with **different** digests"
    return (
        f"The same run as a Prefect flow and as plain function calls ends {same}; orchestration takes "
        f"{100 * overhead['orchestration_share']:.1f} % of a run of {overhead['flow']['wall']:.0f} s. The start of Prefect's "
        f"own server, {overhead['flow']['server_start']:.0f} s, comes on top where none runs."
    )


# of benchmarks/strategies.py, and what to call them here
STRATEGIES = {
    "greedy": "greedy",
    "best_of_n": "best of n",
    "clip_prm": "CLIP-PRM",
    "visvm": "VisVM",
    "clip_prm:end=policy,filter=margin": "CLIP-PRM, filtered by margin",
    "visvm:end=policy,filter=margin": "VisVM, filtered by margin",
    "vimar:by=score": "ViMaR, guided by the score",
    "vimar": "ViMaR, guided by V",
    "vimar (V of the policy's states)": "ViMaR, guided by V of the policy's states",
    "visvm:end=vote": "VisVM that ends by vote",
    "visvm:end=guide,end_value=0 (V of the policy's states)": "VisVM that ends under 0, V of the policy's states",
    "swires": "SWIRES",
    "beam": "beam search",
}


def search_block(results: Path) -> str:
    """The strategies' figures, and how fast the engine is."""
    parts = []
    quality, speed = load(results, "strategies"), load(results, "search_speed")
    if quality is not None:
        rows = {row["name"]: row for row in quality["summary"]}
        lines = ["| | CHAIRi % | Recall % | tokens | ms |", "|---|---|---|---|---|"]
        for name, title in STRATEGIES.items():
            if name in rows:
                row = rows[name]
                chair, recall, tokens = (row[key]["mean"] for key in ("chair_i", "recall", "tokens"))
                quickest = 1000 * row["seconds"]["lowest"]  # the others had to share the machine
                columns = f"{100 * chair:.1f} | {100 * recall:.1f} | {tokens:.0f} | {quickest:.0f}"
                lines.append(f"| {title} | {columns} |")
        parts.append("\n".join(lines))
        seeds = ", ".join(map(str, quality["seeds"]))
        parts.append(
            f"The base model on {quality['scenes']} held-out scenes, six candidates, means over seeds {seeds}; tokens decoded "
            "and milliseconds a caption (the quickest seed's). All strategies, their spread and what their traces say: "
            "[benchmarks/results/strategies.md](benchmarks/results/strategies.md)."
        )
    if speed is not None:
        parts.append(engine_speed(speed))
    return "\n\n".join(parts) or NOT_MEASURED


def vimar_block(results: Path) -> str:
    """ViMaR's work beside VisVM's, and where a factor of four comes from."""
    work = load(results, "vimar_work")
    return VIMAR_NOT_MEASURED if work is None else vimar_page.page(work).strip()


def methods_block(results: Path) -> str:
    """What each method's rounds reached in its own metric, with the controls, and where to read more."""
    methods = load(results, "methods")
    if methods is None:
        return NOT_MEASURED
    rows, note = short_table(methods["summary"], methods).split("\n\n", 1)
    return "\n".join([rows, *controls(results, methods["rounds"])]) + f"\n\n{note}"


def controls(results: Path, rounds: int) -> list[str]:
    """Rows of the methods' table: fine-tuning without search, and LLaVA-CoT with the known answers."""
    rows, empty = [], "| " * (rounds - 1)
    loop, reference = load(results, "self_training"), load(results, "methods_reference")
    if loop is not None:
        own = {row["name"]: row["chair_i"] for row in loop["summary"]}
        base, control = own["base, greedy"], own["control: trained on its own greedy captions"]
        verdict = "not sure" if not control["surely"] else "surely worse" if control["change"] > 0 else "surely better"
        rows.append(
            f"| control: SFT on its own greedy captions | CHAIRi % | {100 * base['mean']:.1f} | {100 * control['mean']:.1f} "
            f"{empty}| {100 * control['change']:+.1f} points, {verdict} | |"
        )
    if reference is not None:
        base, first = by_reference(reference)
        mark = "*" if 2 * first["promoted"] > first["seeds"] else ""
        verdict = "" if first["surely"] else ", not sure"
        rows.append(
            f"| control: LLaVA-CoT with the known answers | accuracy % | {100 * base['metrics']['accuracy'][0]:.1f} | "
            f"{100 * first['metrics']['accuracy'][0]:.1f}{mark} {empty}| {100 * first['change']:+.1f} points{verdict} | |"
        )
    return rows


def by_reference(reference: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(base, round 1) of LLaVA-CoT with the paper's own gate, which compares with the data set's answers."""
    rows = {row["subject"]: row for row in reference["summary"] if row["decoding"] == "greedy"}
    return rows["base"], rows["round-1"]


def gates_block(results: Path) -> str:
    """LLaVA-CoT's two gates, and how fast V is trained."""
    parts = []
    reference, speed = load(results, "methods_reference"), load(results, "value_speed")
    if reference is not None:
        parts.append(two_gates(*by_reference(reference)))
    if speed is not None:
        parts.append(value_speed(speed))
    return "\n\n".join(parts) or NOT_MEASURED


def two_gates(base: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """The gate by agreement beside the paper's gate."""
    before, after = (100 * row["metrics"]["accuracy"][0] for row in (base, first))
    sure = "in every seed" if first["surely"] else "not in every seed"
    return (
        "LLaVA-CoT's answers pass a gate that reads no annotation: most of the policy's own answers must agree. With the "
        f"paper's gate, which compares with the data set's answers (`--set staged.verify=reference`), round 1 goes from "
        f"{before:.1f} to {after:.1f} % ({100 * first['change']:+.1f} points, surely {sure})."
    )


def value_speed(speed: Mapping[str, Any]) -> str:
    """How fast V is trained, against the released shape."""
    shapes = speed["shapes"]
    ratio = shapes["trainer"]["transitions_per_second"] / shapes["released"]["transitions_per_second"]
    return (
        f"V is trained at {ratio:.0f} times the transitions a second of the released shape, which pads every "
        "sentence to 2,560 tokens, with a LLaVA of random weights and 196 image tokens (CPU seconds on one thread; "
        "`python -m benchmarks.value_speed`)."
    )


def engine_speed(speed: Mapping[str, Any]) -> str:
    """The engine against the other ways to call a model."""
    head, machine = speed["headline"], speed["machine"]
    return (
        "The same search and the same captions, in CPU seconds on one thread, with LLaVA-shaped random weights and 196 image "
        "tokens (in brackets: the demo's model). Against the strongest use of `generate`, which keeps the prompt's key-value "
        "cache between sentences and repeats it over the candidates: "
        f"{head['vs_hf_kept_cache_one_image']:.2f} times as fast on one image ({head['vs_hf_kept_cache_one_image_demo']:.2f}), "
        f"{head['vs_hf_kept_cache_eight_images']:.2f} times with eight in flight "
        f"({head['vs_hf_kept_cache_eight_images_demo']:.2f}). Against weaker ones, eight in flight: "
        f"{head['vs_released_shape']:.1f} times as fast as the released call shape ({head['vs_released_shape_demo']:.1f}; with "
        f"its values padded to 2,560 tokens {head['vs_released_shape_padded']:.0f} times), {head['vs_hf_generate']:.1f} times "
        f"as fast as `generate` with all candidates of a step in a batch ({head['vs_hf_generate_demo']:.1f}), "
        f"{head['vs_hf_generate_batched8']:.1f} times as fast with eight images in that batch "
        f"({head['vs_hf_generate_batched8_demo']:.1f}). Guided search takes {head['search_vs_sampling']:.2f} times as long as "
        f"drawing as many tokens, with V on the policy's own states {head['search_vs_sampling_states']:.2f} times. "
        f"Torch {machine['torch']}, {machine['cpu']}; `python -m benchmarks.search_speed`."
    )


def demo_block(results: Path) -> str:
    """What a run printed at its end."""
    run = load(results, "demo-run")
    if run is None:
        return NOT_MEASURED
    return f"```text\n{run['printed'].rstrip()}\n```\n\nThis run took {run['took']} on two CPU cores."


PAGES = {
    "README.md": {"demo-run": demo_block, "methods": methods_block},
    "docs/results.md": {"loop": loop_block, "gates": gates_block, "search": search_block, "vimar": vimar_block},
}


def filled(page: str, text: str, results: Path) -> str:
    """The text of a page of PAGES with its blocks as the results are now; links lead from where the page is.

    Raises:
        ValueError: if a block's marks are missing, or there twice.
    """
    up = "../" * page.count("/")
    blocks = {name: block(results).replace("](", f"]({up}") for name, block in PAGES[page].items()}
    return fill_blocks(page, text, blocks)


def main() -> None:
    """Fill the pages, or with --check only report whether they are filled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        before = (CHECKOUT / page).read_text(encoding="utf-8")
        after = filled(page, before, RESULTS)
        if before != after:
            stale.append(page)
            if not check:
                (CHECKOUT / page).write_text(after, encoding="utf-8")
    if check and stale:
        sys.exit(f"{', '.join(stale)} differ from benchmarks/results: run python -m benchmarks.readme")


if __name__ == "__main__":
    main()
