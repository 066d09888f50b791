"""Strategies side by side: widths, fronts, equal work, and plots whose names cover nothing."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from tasks.report import comparison_figures as figures
from tasks.report.comparison_points import Point, at_equal_work, by_spec, front, points, token_budget, widened
from tasks.report.rounds import Cell


def point(name: str, tokens: float, chair: float, recall: float = 90.0, seconds: float = 0.1) -> Point:
    spec, at, width = name.rpartition("@")
    cells = {m: Cell(v, v - 1, v + 1, 50) for m, v in (("chair_s", 3 * chair), ("chair_i", chair), ("recall", recall))}
    return Point(name, spec if at else name, int(width) if at else None, cells, {}, tokens, seconds, {}, False)


FOUND = [
    point("greedy", 30, 30, 99),
    point("best_of_n@1", 30, 30, 99, 0.2), point("best_of_n@2", 60, 20, 97, 0.3), point("best_of_n@8", 240, 8, 98, 0.4),
    point("visvm@1", 28, 9, 95, 0.2), point("visvm@2", 55, 4, 96, 0.5), point("visvm@6", 150, 1, 96, 0.9),
]  # fmt: skip


def test_a_spec_is_searched_once_a_width_and_what_has_none_once() -> None:
    assert widened("visvm:stop=vote", [4, 1, 4]) == [
        ("visvm:stop=vote@1", "visvm:stop=vote,candidates=1", 1), ("visvm:stop=vote@4", "visvm:stop=vote,candidates=4", 4),
    ]  # fmt: skip
    assert widened("greedy", [1, 2]) == [("greedy", "greedy", None)]
    assert widened("best_of_n:candidates=3", [1, 2]) == [("best_of_n:candidates=3", "best_of_n:candidates=3", None)]
    assert [spec for _, spec, _ in widened("swires", [1, 2, 4])] == ["swires:captions=2", "swires:captions=4"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(pairs: list[tuple[int, int]]) -> None:
    drawn = [point(f"s{i}", float(tokens), float(chair)) for i, (tokens, chair) in enumerate(pairs)]
    beaten = {
        p.name
        for p, (t, c) in zip(drawn, pairs, strict=True)
        if any(u <= t and d <= c and (u, d) != (t, c) for u, d in pairs)
    }
    assert front(drawn, "chair_i") == {p.name for p in drawn} - beaten


def test_more_recall_is_better_and_less_chair() -> None:
    assert front(FOUND, "chair_i") == {"visvm@1", "visvm@2", "visvm@6"}
    assert front(FOUND, "recall") == {"visvm@1", "greedy", "best_of_n@1"}
    assert front(FOUND, "recall", "seconds") == {"greedy"}


def test_equal_work_is_the_widest_point_within_the_tokens_and_the_narrowest_where_none_is() -> None:
    assert [p.name for p in at_equal_work(FOUND, 150)] == ["greedy", "best_of_n@2", "visvm@6"]
    assert [p.name for p in at_equal_work(FOUND, 10)] == ["greedy", "best_of_n@1", "visvm@1"]


@pytest.mark.parametrize(("strategy", "width", "tokens"), [("visvm", 6, 150), ("visvm", 5, 55), ("vimar", 8, 240)])
def test_the_budget_is_what_the_reference_took(strategy: str, width: int, tokens: float) -> None:
    assert token_budget(FOUND, strategy, width) == tokens
    assert token_budget(FOUND[:1], strategy, width) == 30


def test_points_are_per_caption_and_in_the_order_of_the_names() -> None:
    def measured(decoding: str, subject: str = "base") -> list[dict]:
        common = {"subject": subject, "decoding": decoding, "benchmark": "chair", "n": 10}
        return [{**common, "metric": m, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6} for m in ("chair_s", "chair_i")]

    def searched(label: str, tokens: float) -> dict:
        counters = {"decode_tokens": tokens, "search_seconds": 5, "forwards": 30}
        return {"label": label, "counters": json.dumps(counters), "cached": label == "greedy"}

    metrics = [*measured("visvm@2"), *measured("greedy"), *measured("unsearched"), *measured("greedy", "round-1")]
    searches = [searched("greedy", 100), searched("visvm@2", 300), searched("visvm@2", 999), searched("guided-1", 7)]
    greedy, visvm = points(metrics, [], searches, ["greedy", "visvm@2", "unsearched", "guided-1"])
    assert (greedy.tokens, greedy.seconds, greedy.work, greedy.cached) == (10, 0.5, {"forwards": 3}, True)
    assert (visvm.spec, visvm.width, visvm.tokens, visvm.cells["chair_i"].value) == ("visvm", 2, 30, 50)


@pytest.mark.parametrize(
    "many", [FOUND, FOUND[:1], FOUND[3:4], [point(f"s{i}@{k}", 20 * k, 5) for i in range(9) for k in (1, 2)]]
)
def test_plots_name_every_strategy_once_a_panel_and_are_the_same_bytes_again(many: list[Point]) -> None:
    specs = by_spec(many)
    for draw in (
        lambda: figures.work_figure(many, "tokens"),
        lambda: figures.work_figure(many, "seconds"),
        lambda: figures.budget_figure(many),
    ):
        svg = draw()
        assert svg == draw()
        for spec in specs:
            assert len(re.findall(rf">{re.escape(spec)}<", svg.decode())) == 2, spec


def test_no_name_lies_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    annotate = Axes.annotate

    def remember(self, *args, **options):
        texts.append(annotate(self, *args, **options))
        return texts[-1]

    monkeypatch.setattr(Axes, "annotate", remember)
    crowded = [point(f"strategy-{i}@{k}", 20.0 * k, 5 + 0.01 * i, 95) for i in range(8) for k in (1, 2, 4)]
    figures.work_figure([*FOUND, *crowded, point("sample", 31, 29)], "tokens", "png")
    renderer = texts[0].figure.canvas.get_renderer()
    boxes = [(text.axes, text.get_text(), super(type(text), text).get_window_extent(renderer)) for text in texts]
    for i, (panel, name, box) in enumerate(boxes):
        for other_panel, other, other_box in boxes[:i]:
            assert panel is not other_panel or not box.overlaps(other_box), f"{name} lies on {other}"


def test_a_strategy_has_its_own_colour_whoever_stands_beside_it() -> None:
    alone, together = figures._looks(["visvm"]), figures._looks(["other", "greedy", "visvm:stop=vote", "visvm"])
    assert alone["visvm"].colour == together["visvm"].colour
    assert len({look.colour for look in together.values()}) == 4
