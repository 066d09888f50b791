"""The page of `benchmarks.vimar_work`: the work of VisVM and ViMaR, and where a factor of four comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

RELEASED, SAME_LOOPS, ENGINE = "released shape", "released loops", "own loops"
CODE = 12  # answers, and candidates a step, of ViMaR's released code; VisVM's has 6
PAPER = 462 / 108  # seconds a caption of VisVM and of ViMaR, as ViMaR's paper prints them
KINDS = {
    RELEASED: "released loops in the released shape",
    SAME_LOOPS: "released loops by the engine",
    ENGINE: "own loops by the engine",
}
COLUMNS = {
    "decoded": "decoded",
    "sequential": "sequential",
    "prefill": "read",
    "value_tokens": "V reads",
    "forwards": "forwards",
    "value_forwards": "V's forwards",
    "images": "images",
}
Row = Mapping[str, Any]


def page(results: Mapping[str, Any]) -> str:
    """The Markdown of all results: paragraph, ratios, table."""
    rows = results["rows"]
    notes = (
        f"Work a caption, one image at a time, of the first {results['measured_scenes']} of {results['scenes']} held-out "
        "scenes of the demo; CHAIRi and Recall of all of them. K: candidates a step, and whole answers. Decoded: tokens of "
        "all candidates. Sequential: the token positions that have to follow one another, of each step the longest "
        "candidate's. Read: tokens of prompts, images and answers so far that the policy reads before it draws. V reads: "
        "tokens. Images: encoded, by both networks. ms: CPU, one thread. V reads image and text in a network of its own. "
        f"The released code of ViMaR draws its {CODE} answers by beam sampling, four beams for two answers; here each is "
        "sampled. `python -m benchmarks.vimar_work`."
    )
    return "\n\n".join([where_from(rows), ratio_table(rows), table(rows), notes]) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Every row."""
    head = ["", "", "K", *COLUMNS.values(), "ms", "CHAIRi %", "Recall %"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        work = [f"{row['work'][name]:.0f}" for name in COLUMNS]
        quality = [f"{100 * row[name][0]:.1f}" for name in ("chair_i", "recall")]
        columns = [KINDS[row["kind"]], row["method"], str(row["candidates"]), *work]
        lines.append("| " + " | ".join([*columns, f"{1000 * row['seconds']:.0f}", *quality]) + " |")
    return "\n".join(lines)


def ratio_table(rows: Sequence[Row]) -> str:
    """What VisVM costs over ViMaR at the same number of candidates; first VisVM with the paper's over ViMaR with its code's."""
    head = ["VisVM over ViMaR", "K", *COLUMNS.values(), "seconds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    pairs = [(RELEASED, 30, CODE, "ViMaR")]
    for kind in KINDS:
        counts = sorted({row["candidates"] for row in rows if row["kind"] == kind and row["method"] == "ViMaR"})
        pairs += [(kind, k, k, "ViMaR") for k in counts]
    pairs += [(ENGINE, k, k, "ViMaR, nothing added") for k in (6, 30)]
    for kind, mine, theirs, method in pairs:
        ratio = ratios(rows, kind, mine, theirs, method)
        counts_text = str(mine) if mine == theirs else f"{mine} and {theirs}"
        named = KINDS[kind] + ("" if method == "ViMaR" else ", nothing added")
        lines.append("| " + " | ".join([named, counts_text, *map(_shown, ratio.values())]) + " |")
    return "\n".join(lines)


def ratios(rows: Sequence[Row], kind: str, mine: int, theirs: int, method: str = "ViMaR") -> dict[str, float | None]:
    """VisVM with `mine` candidates over ViMaR with `theirs`: each column, then `seconds`; None where ViMaR has none."""
    visvm, vimar = _row(rows, kind, "VisVM", mine), _row(rows, kind, method, theirs)
    columns = {name: (visvm["work"][name], vimar["work"][name]) for name in COLUMNS}
    columns["seconds"] = visvm["seconds"], vimar["seconds"]
    return {name: top / bottom if bottom else None for name, (top, bottom) in columns.items()}


def where_from(rows: Sequence[Row]) -> str:
    """The factor of the released comparison as a product: candidates, call shape, loops, and what is left."""
    released = ratios(rows, RELEASED, 30, CODE)
    equal = ratios(rows, RELEASED, 30, 30)
    engine = ratios(rows, SAME_LOOPS, 30, 30)
    own = {k: ratios(rows, ENGINE, k, k) for k in (6, 30)}
    steps = [_seconds(each) for each in (released, equal, engine, own[30])]
    factors = [above / below for above, below in pairwise(steps)]
    names = ("unequal candidates", "the call shape", "the released loops")
    product = ", ".join(f"{name} {factor:.2f}" for name, factor in zip(names, factors, strict=True))
    chair = {k: [100 * _row(rows, ENGINE, method, k)["chair_i"][0] for method in ("VisVM", "ViMaR")] for k in (6, 30)}
    return (
        f"ViMaR's paper prints {PAPER:.1f} times VisVM's speed. As the released code stands, VisVM with the paper's 30 "
        f"candidates against ViMaR with its code's {CODE}, the factor is {steps[0]:.1f} here. It is the product of {product}, "
        f"and {steps[3]:.2f} that is left: this project's loops by one engine, both with 30 candidates "
        f"({_seconds(own[6]):.2f} with 6). At 30 candidates on both sides in the released shape (factor {steps[1]:.1f}) VisVM "
        f"encodes {_shown(equal['images'])} times as many images, reads {_shown(equal['prefill'])} times as many tokens and "
        f"decodes {_shown(equal['decoded'])} times as many: image and answer so far are read again for every candidate of "
        f"every sentence. By the engine, which reads them once, it reads {_shown(engine['prefill'])} times as many, and the "
        f"factor is {steps[2]:.1f}. In sequential steps, what a GPU with room for all candidates waits for, VisVM needs "
        f"{_shown(own[30]['sequential'])} times ViMaR's ({_shown(own[6]['sequential'])} with 6). CHAIRi of VisVM and ViMaR "
        f"by own loops: {chair[6][0]:.1f} and {chair[6][1]:.1f} % with 6 candidates, {chair[30][0]:.1f} and "
        f"{chair[30][1]:.1f} % with 30."
    )


def _row(rows: Sequence[Row], kind: str, method: str, candidates: int) -> Row:
    return next(row for row in rows if (row["kind"], row["method"], row["candidates"]) == (kind, method, candidates))


def _seconds(ratio: Mapping[str, float | None]) -> float:
    seconds = ratio["seconds"]
    assert seconds is not None
    return seconds


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
