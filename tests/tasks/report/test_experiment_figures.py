"""The plot of an experiment names its metrics and arms, is the same every time, and can stand alone."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes

from storage.schema import Finding
from tasks.core.analysis.findings import Findings
from tasks.core.analysis.measures import measure_of
from tasks.report.experiment_figures import Plot, experiment_figure
from tasks.report.figures import standalone


def row(arm, metric, value, low=None, high=None, x=None):
    return Finding("e", arm, x, 0, metric, value, low, high, 100)


@pytest.mark.parametrize(
    "plot",
    [
        Plot("arms", ("chair_i", "recall")),
        Plot("lines", ("chair_i",), x="candidates"),
        Plot("lines", ("chair_i", "tokens"), x="tokens", log=True),
        Plot("lines", ("ms",), x="captions", log=True, log_y=True),
    ],
)
def test_a_plot_names_what_it_shows_and_is_the_same_every_time(plot) -> None:
    rows = [row(f"v@{x}", metric, 0.1 * x, 0.05 * x, 0.2 * x, float(x)) for x in (1, 2) for metric in ("chair_i", "ms")]
    rows += [row(f"v@{x}", "tokens", 30.0 * x, x=float(x)) for x in (1, 2)]
    rows += [row("greedy", metric, 0.4, 0.3, 0.5) for metric in ("chair_i", "recall", "tokens", "ms")]
    findings = Findings(rows)
    picture = experiment_figure(findings, plot)
    assert picture == experiment_figure(findings, plot) and picture.startswith(b"<svg")
    assert all(measure_of(metric).title.encode() in picture for metric in plot.metrics)
    assert b"greedy" in picture
    assert b"currentColor" not in standalone(picture) and b"var(" not in standalone(picture)


def test_lines_differ_in_colour_or_marker_where_there_are_more_than_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(Axes, "errorbar", lambda self, *_, color, marker, **options: drawn.append((color, marker)))
    rows = [row(f"s{i}@{x}", "chair_i", 0.1, x=float(x)) for i in range(12) for x in (1, 2)]
    experiment_figure(Findings(rows), Plot("lines", ("chair_i",), x="K"))
    assert len(drawn) == len(set(drawn)) == 12


def test_ringed_arms_have_a_ring_each() -> None:
    rows = [row(f"v@{x}", metric, 0.1 * x, x=float(x)) for x in (1, 2) for metric in ("chair_i", "tokens")]
    plain = Plot("lines", ("chair_i",), x="tokens")
    ringed = plain._replace(ringed=lambda findings, metric, x: ["v@2"])
    assert experiment_figure(Findings(rows), ringed) != experiment_figure(Findings(rows), plain)
