"""Controls in the table of rounds, and the check of V in the report."""

from __future__ import annotations

import numpy as np

from storage.schema import Value
from tasks.report.rounds import markdown_table, round_rows
from tasks.report.views import value_check


def metric(decoding: str, subject: str = "base") -> dict[str, object]:
    figures = {"metric": "chair_i", "value": 0.1, "ci_low": 0.05, "ci_high": 0.2, "n": 9}
    return {"subject": subject, "decoding": decoding, "benchmark": "chair", **figures}


def test_controls_follow_the_search_in_a_fixed_order_and_are_called_what_they_are() -> None:
    controls = ("greedy with the same end", "best of 5, equal tokens", "CLIP-PRM", "V, gamma 0", "random V")
    rows = round_rows(
        [metric("greedy", "round-1"), *(metric(f"control: {name}") for name in controls), metric("visvm"), metric("greedy")],
        [], [],
    )  # fmt: skip
    assert [row.label for row in rows] == [
        "base, greedy", "base + search (visvm)", "base + random V", "base + V, gamma 0", "base + CLIP-PRM",
        "base + best of 5, equal tokens", "base + greedy with the same end", "round 1, greedy",
    ]  # fmt: skip
    assert [row.is_control for row in rows] == [False, False, *[True] * 5, False]
    assert "| base + random V | 10.0 [5.0, 20.0] |" in markdown_table(rows)


def values(quality: float) -> list[Value]:
    """Three answers of two sentences about each of forty images, whose returns differ by image and by sentence."""
    draw, rows = np.random.default_rng(0), []
    for image in range(40):
        for answer in range(3):
            for step in range(2):
                own = float(draw.normal())
                name, at = f"{image}-{answer}", (image, answer, step)
                value = image + quality * own + float(draw.normal(0, 0.1))
                rows.append(Value(name, step, own, value, own, image + own, str(image), str(at), 0.9))
    return rows


def test_a_v_that_ranks_images_only_is_out_of_bounds_in_the_report() -> None:
    bounds = {"min_spearman": 0.0, "min_spread": 1e-4}
    good, bad = value_check(1, values(1.0), bounds), value_check(1, values(0.0), bounds)
    assert good.passed and not bad.passed
    assert "over all sentences 0.9" in bad.text or "over all sentences 1.0" in bad.text, "it ranks images"
    assert "its interval wanted above 0" in bad.text and "AUC" in bad.text
    assert value_check(1, values(0.0), {**bounds, "min_spearman": -1.0}).passed
