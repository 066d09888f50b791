"""The grid of `benchmarks.claim` as a page: tables of every cell, differences with intervals over seeds, and the figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.measured import fill_blocks, write_results
from tasks.core.analysis.certainty import Effect, over_seeds
from tasks.report.figures import ACCENT, INK, MUTED, SECOND, STYLE, TEAL, WARM, encode
from tasks.report.pages import markdown_lines

DOCS = Path(__file__).parent.parent / "docs"
FAR, NEAR, RANDOM, PRM = "V, gamma 0.9", "V, gamma 0", "random V", "CLIP-PRM"
METHODS = (
    "greedy", "greedy, the same end", "best of n", PRM, RANDOM, NEAR, FAR, "ViMaR",
)  # fmt: skip
COLOURS = {FAR: ACCENT, NEAR: SECOND, PRM: TEAL, RANDOM: MUTED, "ViMaR": WARM, "best of n": INK}
WORLDS = {"committed": "commitments", "independent": "no commitments"}
SCORERS = {"scorer": "the demo's scorer", "scorer-half": "half-trained scorer", "oracle": "oracle"}
CONTRASTS = (f"{FAR} - {NEAR}", f"{FAR} - {PRM}", f"{FAR} - {RANDOM}", f"{FAR} - best of n", f"{NEAR} - {PRM}")

Cells = Mapping[str, Mapping[str, Any]]


def of_seeds(cells: Cells, world: str, scorer: str) -> list[Mapping[str, Any]]:
    """The cells of all seeds that are there."""
    return [cell for name, cell in sorted(cells.items()) if name.split("/")[:2] == [world, scorer]]


def effect(cells: Cells, world: str, scorer: str, contrast: str) -> Effect:
    """A difference in CHAIRi at greedy's Recall, points, the seed as a random effect."""
    rows = [cell["differences"][contrast] for cell in of_seeds(cells, world, scorer)]
    return _over_seeds([100 * row["diff"] for row in rows], [100 * row["error"] for row in rows])


def _over_seeds(values: Sequence[float], errors: Sequence[float]) -> Effect:
    """Over seeds; of a single one, the interval over its captions."""
    if len(values) > 1:
        return over_seeds(values, errors)
    half = 1.96 * errors[0]
    return Effect(values[0], errors[0], values[0] - half, values[0] + half, float("nan"), 1)


def difference_of_differences(cells: Cells, scorer: str, contrast: str = CONTRASTS[0]) -> Effect:
    """The difference with commitments minus that without, seed by seed."""
    values, errors = [], []
    for with_, without in zip(*(of_seeds(cells, world, scorer) for world in WORLDS), strict=True):
        a, b = with_["differences"][contrast], without["differences"][contrast]
        values.append(100 * (a["diff"] - b["diff"]))
        errors.append(100 * float(np.hypot(a["error"], b["error"])))
    return _over_seeds(values, errors)


def scorers_of(cells: Cells) -> list[str]:
    """The scorers that were measured in both worlds, with the same seeds."""
    seeds = {
        scorer: [[name.split("/")[2] for name in sorted(cells) if name.startswith(f"{w}/{scorer}/")] for w in WORLDS]
        for scorer in SCORERS
    }
    return [scorer for scorer, (with_, without) in seeds.items() if with_ and with_ == without]


def in_words(value: Effect) -> str:
    """`-3.1 (-5.0 to -1.2)`."""
    return f"{value.value:+.1f} ({value.low:+.1f} to {value.high:+.1f})"


def method_table(cells: Cells, world: str, scorer: str) -> str:
    """A row for each method: the point at greedy's Recall, means over seeds."""
    rows = []
    of_cells = of_seeds(cells, world, scorer)
    for method in METHODS:
        points = [cell["points"][method][cell["at"][method]] for cell in of_cells]
        greedy = [cell["points"]["greedy"][0]["recall"][0] for cell in of_cells]
        chair = [100 * point["chair_i"][0] for point in points]
        recall = [100 * point["recall"][0] for point in points]
        missed = sum(point["recall"][0] < base - 0.01 for point, base in zip(points, greedy, strict=True))
        note = f"below in {missed} of {len(points)} seeds" if missed else ""
        rows.append(
            [
                method,
                f"{np.mean(chair):.1f} ({min(chair):.1f} to {max(chair):.1f})",
                f"{100 * np.mean([point['chair_s'][0] for point in points]):.1f}",
                f"{np.mean(recall):.1f}",
                note,
                f"{np.mean([point['length'][0] for point in points]):.1f}",
                f"{np.mean([point['tokens'] for point in points]):.0f}",
            ]
        )
    head = ["method", "CHAIRi %", "CHAIRs %", "Recall %", "Recall of greedy - 1", "words", "tokens"]
    return markdown_lines(head, rows)


def contrast_table(cells: Cells) -> str:
    """Differences at greedy's Recall in every cell, and the difference of differences."""
    rows = []
    for scorer in scorers_of(cells):
        what = f"{SCORERS[scorer]}, {_seeds_in_words(cells, scorer)}"
        for contrast in CONTRASTS:
            values = [in_words(effect(cells, world, scorer, contrast)) for world in WORLDS]
            rows.append([what, contrast, *values, in_words(difference_of_differences(cells, scorer, contrast))])
    return markdown_lines(["scorer", "CHAIRi, points", *WORLDS.values(), "difference of the two"], rows)


def _seeds_in_words(cells: Cells, scorer: str) -> str:
    many = len(of_seeds(cells, "committed", scorer))
    return f"{many} seeds" if many > 1 else "1 seed"


def figure(cells: Cells) -> bytes:
    """The answer above, the curves below."""
    with matplotlib.rc_context(STYLE):
        scorers = scorers_of(cells)
        fig = Figure(figsize=(5 + 3 * len(scorers), 10.5), layout="constrained")
        grid = fig.add_gridspec(3, len(scorers), height_ratios=(1.4, 1, 1))
        for column, scorer in enumerate(scorers):
            what = SCORERS[scorer]
            _forest(fig.add_subplot(grid[0, column]), cells, scorer, what, labelled=column == 0)
            for row, (world, name) in enumerate(WORLDS.items(), 1):
                axes = fig.add_subplot(grid[row, column])
                _curves(axes, of_seeds(cells, world, scorer), f"{name}, {what}")
                if column == 0:
                    axes.set_ylabel("CHAIRi %")
                if row == len(WORLDS):
                    axes.set_xlabel("Recall %")
        handles, labels = fig.axes[1].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4)
        return encode(fig, "svg")


def _forest(axes: Any, cells: Cells, scorer: str, what: str, *, labelled: bool) -> None:
    marks = []
    for contrast in CONTRASTS[:4]:
        marks += [
            (f"{contrast}, {name}", effect(cells, world, scorer, contrast), colour)
            for (world, name), colour in zip(WORLDS.items(), (ACCENT, MUTED), strict=True)
        ]
    marks += [
        (f"{contrast}, difference of the two", difference_of_differences(cells, scorer, contrast), WARM)
        for contrast in CONTRASTS[:3]
    ]
    for y, (_, value, colour) in enumerate(reversed(marks)):
        axes.plot([value.low, value.high], [y, y], color=colour, lw=2)
        axes.plot([value.value], [y], "o", color=colour)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(marks)), [name for name, *_ in reversed(marks)] if labelled else [""] * len(marks))
    axes.set_title(f"{what}, {_seeds_in_words(cells, scorer)}")
    axes.set_xlabel("CHAIRi, points (left: the first is better)")


def _curves(axes: Any, of_cells: Sequence[Mapping[str, Any]], title: str) -> None:
    for method in METHODS:
        points = np.array(
            [[[p["recall"][0], p["chair_i"][0]] for p in cell["points"][method]] for cell in of_cells]
        ).mean(axis=0)
        colour, single = COLOURS.get(method, INK), len(points) == 1
        style = {"marker": "s" if single else ".", "ls": "none" if single else "-", "ms": 6 if single else 5}
        if method == "greedy, the same end":
            style |= {"ls": ":", "marker": ""}
        axes.plot(
            100 * points[:, 0], 100 * points[:, 1], color=colour, label=method,
            mfc="none" if method == "greedy" else colour, **style,
        )  # fmt: skip
    greedy = np.mean([cell["points"]["greedy"][0]["recall"][0] for cell in of_cells])
    axes.axvline(100 * greedy - 1, color=MUTED, lw=0.8, ls="--")
    axes.set_xlim(88, 100)
    axes.set_ylim(0, 42)
    axes.set_title(title)


def answer(cells: Cells, scorer: str = "scorer") -> str:
    """What the grid says, in three sentences: V of gamma 0.9 against gamma 0, CLIP-PRM and random values."""
    far = {world: effect(cells, world, scorer, CONTRASTS[0]) for world in WORLDS}
    prm = effect(cells, "committed", scorer, CONTRASTS[1])
    chance = effect(cells, "committed", scorer, CONTRASTS[2])
    without = [effect(cells, "independent", scorer, contrast) for contrast in CONTRASTS[:3]]
    alike = all(value.low <= 0 <= value.high for value in without)
    none = "it can't be told from any of them" if alike else f"the three are {', '.join(map(in_words, without))}"
    against = "points of CHAIRi at greedy's Recall"
    gains = [difference_of_differences(cells, scorer, contrast) for contrast in CONTRASTS[:3]]
    return (
        f"With a scorer that errs and a policy whose early choices commit it, V of gamma 0.9 {_verdict(prm)} CLIP-PRM by "
        f"{in_words(prm)} {against} and {_verdict(chance)} random values by {in_words(chance)}; it "
        f"{_verdict(far['committed'])} V of gamma 0, by {in_words(far['committed'])}. Where no choice changes what follows, "
        f"{none}. With commitments minus without, the difference is {in_words(gains[1])} from CLIP-PRM, "
        f"{in_words(gains[2])} from random values, and {in_words(gains[0])} from gamma 0, which alone would show foresight "
        f"and {'is sure' if gains[0].high < 0 else 'is not sure'}: gamma 0 opens well or badly by the luck of its seed."
    )


def sentence(cells: Cells, scorer: str = "scorer") -> str:
    """The answer for the README, in one sentence."""
    near, prm, chance = (effect(cells, "committed", scorer, contrast) for contrast in CONTRASTS[:3])
    foresight = difference_of_differences(cells, scorer)
    return (
        f"Where early choices commit the policy, V {_verdict(prm)} CLIP-PRM ({in_words(prm)} points of CHAIRi at greedy's "
        f"Recall) and {_verdict(chance)} random values ({in_words(chance)}), and {_verdict(near)} a V without a future "
        f"({in_words(near)}); minus the same where no choice changes what follows, that last difference is "
        f"{in_words(foresight)}: foresight is {'sure' if foresight.high < 0 else 'not sure'}."
    )


def _verdict(value: Effect) -> str:
    if value.high < 0:
        return "beats"
    return "loses to" if value.low > 0 else "can't be told from"


def page(results: Mapping[str, Any]) -> str:
    """The block of docs/experiments.md, which is the results' page too."""
    cells = results["cells"]
    minutes = sum(cell["seconds"] for cell in cells.values()) / 60
    parts = [
        answer(cells),
        "![Does looking ahead beat the next reward?](experiments/claim.svg)",
        contrast_table(cells),
        f"Differences in CHAIRi at greedy's Recall, negative: the first is better. {results['scenes']} scenes a seed; "
        f"95 % intervals, with the seed as a random effect where there are several. {len(cells)} cells took "
        f"{minutes:.0f} minutes of one process, beside others.",
    ]
    for world, name in WORLDS.items():
        for scorer in scorers_of(cells):
            title = f"**{name}, {SCORERS[scorer]}, {_seeds_in_words(cells, scorer)}**"
            parts += [title, method_table(cells, world, scorer)]
    missing = [f"{SCORERS[scorer]}" for scorer in SCORERS if scorer not in scorers_of(cells)]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n\n".join(parts)


def write_page(out: Path, results: dict[str, Any]) -> None:
    """The results, their page and the figure; the blocks of the documents if the demo's scorer is there."""
    if "scorer" not in scorers_of(results["cells"]):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print("the demo's scorer was not measured in both worlds: no page is written")
        return
    text = page(results)
    write_results(out, results, f"# Does looking ahead beat the next reward?\n\n{text}\n")
    (DOCS / "experiments").mkdir(exist_ok=True)
    (DOCS / "experiments" / "claim.svg").write_bytes(figure(results["cells"]))
    for document, block in ((DOCS / "experiments.md", text), (DOCS.parent / "README.md", sentence(results["cells"]))):
        filled = fill_blocks(document.name, document.read_text(encoding="utf-8"), {"claim": block})
        document.write_text(filled, encoding="utf-8")
