"""Every method from the same base: does it improve its own metric, does it keep improving, does it collapse?

    python -m benchmarks.methods                 goes on with what is missing
    python -m benchmarks.methods --status        what is done, what is missing, and how long that takes
    python -m benchmarks.methods --minutes 60    begins no further run after an hour

It writes benchmarks/results/methods.json, .md and docs/methods.svg.

For every method's demo profile and every seed: the whole loop for three rounds on held-out scenes, whatever the gate decides
of a round (the next one starts from its champion). Each round's model is paired with the base on the same items. Methods that
caption start from the same base policy, images and rollouts; staged answers from the demo's second policy. VisVM and ViMaR
stand beside controls: one round whose captions are searched with random numbers for V, with V of gamma 0, by the scorer, ...

Results are written after every run, and a run that was killed goes on from the store's cache. A run counts as done if its
profile and its models are what they are now; others are dropped from the results and run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measured import RESULTS, on_scenes, options_parser, write_results
from benchmarks.methods_tables import CONTROLS, METHODS, TITLES, figure, summary, table
from flows.profiles.loading import Profile
from flows.recording import recorded_run
from storage import catalog, runs

FIGURE = Path(__file__).parents[1] / "docs" / "methods.svg"
CHANGES = {
    "random": ["search.guide=random"],
    "gamma 0": ["value.gamma=0"],
    "clip_prm": ["search.strategy=clip_prm"],
    "best_of_n": ["search.strategy=best_of_n"],
    "greedy": ["search.choose=greedy"],
}  # control -> what it changes in its method's profile


class Case(NamedTuple):
    """One run: a method or a control, at a seed."""

    method: str  # a key of TITLES
    seed: int
    profile: Profile
    inputs: str  # digest of the profile and its models

    def done(self, measured: Sequence[Mapping[str, Any]]) -> bool:
        """Whether its figures are among these runs."""
        return any(
            (run["method"], run["seed"], run.get("inputs")) == (self.method, self.seed, self.inputs) for run in measured
        )


def case_of(method: str, seed: int, options: argparse.Namespace) -> Case:
    """A method's profile, or a control's, at a seed, and what it stands for."""
    from flows.profiles.loading import locate
    from flows.round.prepare import base_policy
    from tasks.models.scorers import import_scorer

    name, _, control = method.partition(" ")
    rounds = 1 if control else options.rounds
    changes = [f"rounds={rounds}", f"patience={rounds}", *CHANGES.get(control, ()), *options.overrides]
    profile = on_scenes(name, seed, options.scenes, changes)
    scorer = import_scorer(locate(profile.scorer.checkpoint), profile.scorer.dtype)
    settings = profile.model_dump_json(exclude={"description", "runtime"})
    content = [settings, base_policy(profile).checkpoint.digest, scorer.digest]
    return Case(method, seed, profile, hashlib.sha256("\n".join(content).encode()).hexdigest()[:16])


def run_case(case: Case) -> dict[str, Any]:
    """One whole run: its greedy metrics by round, the paired differences from the base, the gate's decisions, seconds."""
    from flows.self_training import improve  # brings in Prefect, which the pages' tables do without

    profile = case.profile
    began = time.perf_counter()
    with recorded_run(profile.name, profile) as run_id:
        ended = improve(profile, run_id)
    runs.finish_run(run_id, "completed", rounds=ended.rounds, champion=ended.champion, message=ended.message)
    seconds = round(time.perf_counter() - began, 1)
    facts = {"method": case.method, "seed": case.seed, "inputs": case.inputs, "task": profile.task, "seconds": seconds}
    return {**facts, **recorded_figures(run_id)}


def recorded_figures(run_id: str) -> dict[str, Any]:
    """A run's figures in the store: metrics of every decoding, differences from the base's greedy captions, decisions."""
    run = f"run_id = '{run_id}'"
    benchmarks = "benchmark in ('chair', 'vqa', 'drift')"
    queries = {
        "metrics": f"subject, decoding, benchmark, metric, value, ci_low, ci_high from metrics where {run} and {benchmarks}",
        "against_base": f"subject_a, decoding_a, metric, diff, ci_low, ci_high from comparisons where {run} and {benchmarks} "
        "and subject_b = 'base' and decoding_b in ('greedy', 'plain')",
        "decisions": f"candidate, promoted, reason from decisions where {run}",
    }
    connection = catalog.connect()
    return {
        name: sorted(map(list, catalog.query(f"select distinct {query}", connection)[1]))
        for name, query in queries.items()
    }


def write(results: dict[str, Any], out: Path) -> str:
    """Results, table and figure of the runs so far; the table."""
    results["summary"] = summary(results["runs"])
    text = table(results["summary"], results)
    write_results(out, results, text)
    figure(results["summary"], FIGURE if out.parent == RESULTS else out.with_suffix(".svg"))
    return text


def status(cases: Sequence[Case], measured: Sequence[Mapping[str, Any]]) -> str:
    """What is done and what is missing, with the seconds that it took, or takes by the runs of the same method so far."""
    lines, spent, ahead = [], 0.0, 0.0
    for case in cases:
        same = [run["seconds"] for run in measured if run["method"] == case.method]
        if case.done(measured):
            took = next(run["seconds"] for run in measured if case.done([run]))
            spent += took
            lines.append(f"done     {case.method}, seed {case.seed}: {took:.0f} s")
            continue
        known = same or [run["seconds"] for run in measured]
        guess = statistics.mean(known) if known else float("nan")
        ahead += guess
        lines.append(
            f"missing  {case.method}, seed {case.seed}: " + (f"about {guess:.0f} s" if known else "time not known yet")
        )
    missing = sum(line.startswith("missing") for line in lines)
    rest = (
        "" if not missing else f", about {ahead / 60:.0f} minutes" if math.isfinite(ahead) else ", time not known yet"
    )
    lines.append(
        f"{len(cases) - missing} of {len(cases)} runs done in {spent / 60:.0f} minutes; {missing} missing{rest}"
    )
    return "\n".join(lines)


def known_results(options: argparse.Namespace) -> tuple[dict[str, Any], list[Any]]:
    """(what is kept of the results file, all of its runs). Runs of other profiles or models than today's are dropped.

    Raises:
        SystemExit: the file's runs have other options.
    """
    wanted = {key: getattr(options, key) for key in ("scenes", "rounds", "overrides")}
    if options.fresh or not options.out.is_file():
        return wanted | {"runs": []}, []
    before = json.loads(options.out.read_text(encoding="utf-8"))
    if different := [key for key, value in wanted.items() if before[key] != value]:
        raise SystemExit(
            f"{options.out} was measured with {', '.join(f'{key} {before[key]}' for key in different)}: give the same, "
            "another --out, or --fresh to replace it"
        )
    current = [
        run
        for run in before["runs"]
        if run["method"] in TITLES and case_of(run["method"], run["seed"], options).done([run])
    ]
    return wanted | {"runs": current}, before["runs"]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = options_parser(__doc__, "methods", scenes=500)
    parser.add_argument("--methods", nargs="+", choices=TITLES, default=[*METHODS, *CONTROLS], metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=3, help="of the methods; controls have one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further run after so many")
    parser.add_argument("--status", action="store_true", help="list what is done and what is missing, and run nothing")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Go on with what is missing; print and write after every run."""
    options, began = parsed(arguments), time.monotonic()
    # By seed first: after a third of the time every method has one.
    cases = [case_of(method, seed, options) for seed in options.seeds for method in options.methods]
    results, before = known_results(options)
    dropped = len(before) - len(results["runs"])
    print(status(cases, before), flush=True)
    if dropped:
        print(f"{dropped} runs of other models or settings are not counted", flush=True)
    if options.status:
        return
    for case in cases:
        if case.done(results["runs"]):
            continue
        if time.monotonic() - began > 60 * options.minutes:
            break
        run = run_case(case)
        results["runs"].append(run)
        results["seeds"] = sorted({run["seed"] for run in results["runs"]})
        write(results, options.out)
        reasons = [reason for *_, reason in run["decisions"]]
        print(f"{case.method}, seed {case.seed}: {run['seconds']} s, {reasons}", flush=True)
    if results["runs"]:
        results.setdefault("seeds", sorted({run["seed"] for run in results["runs"]}))
        print(write(results, options.out))
    print(status(cases, [*results["runs"], *before]).splitlines()[-1])


if __name__ == "__main__":
    main()
