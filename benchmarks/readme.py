"""Fills the README's marked blocks from benchmarks/results: `python -m benchmarks.readme`.

    <!-- results:begin --> ... <!-- results:end -->      self_training.json and overhead.json, where they are
    <!-- methods:begin --> ... <!-- methods:end -->      methods.json and value_speed.json
    <!-- search:begin --> ... <!-- search:end -->        strategies.json and search_speed.json
    <!-- demo-run:begin --> ... <!-- demo-run:end -->    demo-run.json: what a run printed, and how long it took

So no figure in the README is typed by hand; a test compares the two.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods import short_table
from benchmarks.self_training import table

CHECKOUT = Path(__file__).resolve().parent.parent
README = CHECKOUT / "README.md"
RESULTS = CHECKOUT / "benchmarks" / "results"
NOTHING = "*Not measured yet: `python -m benchmarks.self_training` writes these figures.*"


def results_block(results: Path) -> str:
    """The headline table, what the gate said, and what orchestration costs."""
    parts = []
    loop, overhead = results / "self_training.json", results / "overhead.json"
    if loop.is_file():
        kept = json.loads(loop.read_text(encoding="utf-8"))
        parts += [table(kept["summary"], kept["scenes"], kept["seeds"]).strip(), gate(kept["runs"])]
    if overhead.is_file():
        parts.append(orchestration(json.loads(overhead.read_text(encoding="utf-8"))))
    return "\n\n".join(parts) or NOTHING


def gate(runs: Sequence[Mapping[str, Any]]) -> str:
    """In how many seeds each round's model was promoted."""
    words = []
    for number in range(len(runs[0]["decisions"])):
        won = sum(": promoted:" in run["decisions"][number] for run in runs)
        words.append(f"round {number + 1} in {won} of {len(runs)} seeds")
    return f"The gate promoted {', '.join(words)}."


def orchestration(found: Mapping[str, Any]) -> str:
    """What the flow adds to plain calls of the same stages."""
    same = "with the same digests" if found["same_digests"] else "with **different** digests"
    return (
        f"The same run as a Prefect flow and as plain function calls ends {same}; orchestration takes "
        f"{100 * found['orchestration_share']:.1f} % of a run of {found['flow']['wall']:.0f} s. The start of Prefect's own "
        f"server, {found['flow']['server_start']:.0f} s, comes on top where none runs."
    )


# of benchmarks/strategies.py, and what to call them here
STRATEGIES = {
    "greedy": "greedy",
    "best_of_n": "best of n",
    "clip_prm": "CLIP-PRM",
    "visvm": "VisVM",
    "vimar:by=score": "ViMaR, guided by the score",
    "vimar": "ViMaR, guided by V",
    "vimar (V of the policy's states)": "ViMaR, guided by V of the policy's states",
    "visvm:stop=vote": "VisVM that stops by vote",
    "visvm:stop=value (V of the policy's states)": "VisVM that stops by value, V of the policy's states",
    "swires": "SWIRES",
    "beam": "beam search",
}


def search_block(results: Path) -> str:
    """The strategies' figures, and how fast the engine is."""
    parts = []
    quality, speed = results / "strategies.json", results / "search_speed.json"
    if quality.is_file():
        kept = json.loads(quality.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in kept["summary"]}
        lines = ["| | CHAIRi % | Recall % | tokens | ms |", "|---|---|---|---|---|"]
        for name, title in STRATEGIES.items():
            if name in rows:
                row = rows[name]
                chair, recall, tokens = (row[key]["mean"] for key in ("chair_i", "recall", "tokens"))
                quickest = 1000 * row["seconds"]["lowest"]  # the others had to share the machine
                cells = f"{100 * chair:.1f} | {100 * recall:.1f} | {tokens:.0f} | {quickest:.0f}"
                lines.append(f"| {title} | {cells} |")
        parts.append("\n".join(lines))
        seeds = ", ".join(map(str, kept["seeds"]))
        parts.append(
            f"The base model on {kept['scenes']} held-out scenes, six candidates, means over seeds {seeds}; tokens decoded "
            "and milliseconds a caption (the quickest seed's). All strategies, their spread and what their traces say: "
            "[benchmarks/results/strategies.md](benchmarks/results/strategies.md)."
        )
    if speed.is_file():
        parts.append(engine_speed(json.loads(speed.read_text(encoding="utf-8"))))
    return "\n\n".join(parts) or NOTHING


def methods_block(results: Path) -> str:
    """What each method's rounds reached, in its own metric, and how fast V is trained."""
    parts = []
    methods, speed = results / "methods.json", results / "value_speed.json"
    if methods.is_file():
        kept = json.loads(methods.read_text(encoding="utf-8"))
        parts.append(short_table(kept["summary"], kept))
    reference = results / "methods_reference.json"
    if reference.is_file():
        parts.append(by_reference(json.loads(reference.read_text(encoding="utf-8"))))
    if speed.is_file():
        parts.append(value_speed(json.loads(speed.read_text(encoding="utf-8"))))
    return "\n\n".join(parts) or NOTHING


def by_reference(kept: Mapping[str, Any]) -> str:
    """LLaVA-CoT with the paper's own gate, which compares with the data set's answers."""
    rows = {row["subject"]: row for row in kept["summary"] if row["decoding"] == "greedy"}
    base, first = (100 * rows[name]["metrics"]["accuracy"][0] for name in ("base", "round-1"))
    sure = "in every seed" if rows["round-1"]["surely"] else "not in every seed"
    return (
        "LLaVA-CoT's answers pass a gate that reads no annotation: most of the policy's own answers must agree. With the "
        f"paper's gate, which compares with the data set's answers (`--set staged.verify=reference`), round 1 goes from "
        f"{base:.1f} to {first:.1f} % ({100 * rows['round-1']['change']:+.1f} points, surely {sure})."
    )


def value_speed(found: Mapping[str, Any]) -> str:
    """How fast V is trained, against the released shape."""
    shapes = found["shapes"]
    ratio = shapes["trainer"]["transitions_per_second"] / shapes["released"]["transitions_per_second"]
    return (
        f"V is trained at {ratio:.0f} times the transitions a second of the released shape, which pads every "
        "sentence to 2,560 tokens, with a LLaVA of random weights and 196 image tokens (CPU seconds on one thread; "
        "`python -m benchmarks.value_speed`)."
    )


def engine_speed(found: Mapping[str, Any]) -> str:
    """The engine against the other ways to call a model."""
    head, machine = found["headline"], found["machine"]
    return (
        "The same search and the same captions, in CPU seconds on one thread, with LLaVA-shaped random weights and 196 image "
        "tokens (in brackets: the demo's model): "
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
    path = results / "demo-run.json"
    if not path.is_file():
        return NOTHING
    run = json.loads(path.read_text(encoding="utf-8"))
    return f"```text\n{run['printed'].rstrip()}\n```\n\nThis run took {run['took']} on two CPU cores."


def filled(text: str, results: Path) -> str:
    """The README's text with its blocks as the results are now.

    Raises:
        ValueError: if a block's marks are missing.
    """
    for name, block in (
        ("results", results_block(results)),
        ("methods", methods_block(results)),
        ("search", search_block(results)),
        ("demo-run", demo_block(results)),
    ):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        text, count = re.subn(f"{begin}.*?{end}", lambda _, b=begin, t=block, e=end: f"{b}\n{t}\n{e}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"the README has {count} blocks {begin} ... {end}; one is needed")
    return text


def main() -> None:
    """Fill the README, or with --check only say whether it is filled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    before = README.read_text(encoding="utf-8")
    after = filled(before, RESULTS)
    if parser.parse_args().check:
        sys.exit("README.md differs from benchmarks/results: run python -m benchmarks.readme" if before != after else 0)
    README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
