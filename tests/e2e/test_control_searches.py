"""A run with the controls beside its search: their rows in every table, and which V is whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import catalog, runs
from tasks.report.run_report import run_rows, write_report
from tests.support.tiny_run import calls, in_process

pytestmark = pytest.mark.long


def test_controls_stand_beside_the_search_in_the_first_rounds_table(home: Path) -> None:
    assert in_process(home, "evaluate.decodings=[greedy,search,controls]", "search.temperatures=[0.7,0.9]") == 0
    (run,) = runs.list_runs()
    labels = [row.label for row in run_rows(run.run_id)]
    best = labels[5].removeprefix("base + best of ").split(" ")[0].rstrip(",")
    fits = "equal" if f"best of {best}, equal" in labels[5] else "more"
    assert labels == [
        "base, greedy", "base + search (visvm)", "base + random V", "base + V, gamma 0", "base + CLIP-PRM",
        f"base + best of {best}, {fits} tokens", "base + greedy with the same end", "round 1, greedy",
    ]  # fmt: skip
    work = {
        call.label: catalog.query(f"select ({call.counters!r}::json->>'decode_tokens')::double")[1][0][0]
        for call in calls(run.run_id)
        if call.stage == "gather" or (call.stage == "search" and call.shard is None)
    }
    budget = next(count for label, count in work.items() if label.endswith("base visvm"))
    used = next(count for label, count in work.items() if label.endswith(f"base control: best of {best}"))
    assert (used <= budget) == (fits == "equal") and (fits == "equal" or best == "1")
    pairs = "select distinct decoding_a from comparisons where subject_a = 'base' and decoding_b = 'control: random V'"
    assert catalog.query(pairs)[1] == [("visvm",)], "the search against its control"
    gammas = catalog.query('select gamma, count(*) from "values" group by gamma order by gamma')[1]
    assert [gamma for gamma, _ in gammas] == [0.0, 0.9] and gammas[0][1] == gammas[1][1]
    page = write_report(run.run_id).read_text(encoding="utf-8")
    assert page.count("value model of round 1 ranks") == 1 and "base + greedy with the same end" in page
