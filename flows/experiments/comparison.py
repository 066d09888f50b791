"""Strategies compared: all of them over the same images and prompts, at several widths. Order only: every line is a stage.

visloop compare demo --strategies best_of_n,visvm,vimar
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.experiments.bench import Bench, guided, searched
from flows.experiments.contenders import enter
from flows.profiles.loading import Profile
from flows.recording import recorded_run
from flows.round.measure import chair_of, compared
from flows.round.prepare import prepare_loop
from storage import runs
from tasks.report.comparison import Contender, write_comparison
from tasks.search.search import CaptionsResult, search_needs
from tasks.stage.runtime import use_runtime

log = logging.getLogger(__name__)


@flow(
    name="comparison",
    flow_run_name="{profile.name}-seed-{profile.seed}",
    # One search at a time: seconds are measured.
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def comparison(
    profile: Profile, strategies: Sequence[str] = (), budgets: Sequence[int] = (), tokens: float | None = None
) -> str:
    """Search the benchmark's images with every strategy at every width; returns the run's id.

    Args:
        profile: models, images, and the settings that a spec doesn't name.
        strategies: NAME, or NAME:key=value,key=value; all that suit captions if left out.
        budgets: widths, that is candidates; 1 to 16 and the profile's own if left out.
        tokens: decoded tokens a caption to compare at; those of the profile's own search with visvm if left out.
    """
    return recorded(profile, enter(profile, strategies, budgets), tokens)


def recorded(profile: Profile, entered: Sequence[Contender], tokens: float | None = None) -> str:
    """All searches as one run, with its page; the run's id."""
    # Not under the profile's name: its latest run has a champion, and this has none.
    with recorded_run(f"{profile.name} compare", profile) as run_id:
        log.info("run %s", run_id)
        with use_runtime(profile.runtime):
            search_all(profile, entered)
    runs.finish_run(run_id, "completed", message=f"{len(entered)} searches compared")
    write_comparison(run_id, tokens)
    return run_id


def search_all(profile: Profile, entered: Sequence[Contender]) -> dict[str, CaptionsResult]:
    """Captions of the benchmark's images by every search, measured, each paired with greedy; by the search's name."""
    bench = guided(Bench(prepare_loop(profile)), frozenset().union(*(search_needs(one.config) for one in entered)))
    found = {one.name: searched(bench, one.name, one.config) for one in entered}
    scores = {name: chair_of(bench.context, result.captions, "base", name).scores for name, result in found.items()}
    for name, measured in scores.items():
        if name != "greedy":
            compared(bench.context, measured, scores["greedy"], f"base {name} - greedy")
    return found
