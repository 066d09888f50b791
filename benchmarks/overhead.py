"""What orchestration costs: the same run as a Prefect flow and as plain calls of the stages.

    python -m benchmarks.overhead                 writes benchmarks/results/overhead.json

Both runs start from an empty store and end with the same digests. A wall-clock ratio of two runs of minutes carries
the machine's noise of several per cent, so the figure to quote is accounted inside each run: the time that no stage was
at work. Prefect's share is what the flow adds to that over the plain calls. The server's start-up is given apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.measured import RESULTS


def measure(mode: str, overrides: list[str]) -> dict[str, Any]:
    """One run in this process: wall seconds, seconds in stages, digests."""
    from flows.profiles.loading import load_profile
    from flows.self_training import improve, self_training
    from storage import runs
    from tasks.stage.calls import run_recording

    profile = load_profile("demo", overrides)
    started = 0.0
    if mode == "flow":
        from prefect import flow

        @flow
        def nothing() -> None:
            """Bring the server up."""

        began = time.perf_counter()
        nothing()
        started = time.perf_counter() - began
    began = time.perf_counter()
    if mode == "flow":
        run_id = self_training(profile).run_id
    else:
        from tasks.report.run_report import write_report

        run_id = runs.start_run(profile.name, profile.model_dump_json())
        with run_recording(run_id):
            summary = improve(profile, run_id)
        runs.finish_run(run_id, "completed", rounds=summary.rounds, champion=summary.champion)
        write_report(run_id)
    wall = time.perf_counter() - began
    stages = runs.stage_runs(run_id)
    return {
        "mode": mode,
        "wall": wall,
        "in_stages": sum(row.seconds for row in stages),
        "stages": len(stages),
        "server_start": started,
        "digests": sorted({f"{row.stage} {row.label} {row.round} {row.shard} {row.digest}" for row in stages}),
    }


def main() -> None:
    """Run both, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mode", choices=("plain", "flow"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode:
        print("RESULT " + json.dumps(measure(options.mode, options.overrides)))
        return
    results = {}
    for mode in ("plain", "flow"):
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-m", "benchmarks.overhead", "--mode", mode]
            command += [part for setting in options.overrides for part in ("--set", setting)]
            done = subprocess.run(
                command, env={**os.environ, "VISLOOP_HOME": home}, stdout=subprocess.PIPE, text=True, check=True
            )
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
            results[mode] = json.loads(line.removeprefix("RESULT "))
    plain, flow = results["plain"], results["flow"]
    idle = {mode: run["wall"] - run["in_stages"] for mode, run in results.items()}
    result = {
        "overrides": options.overrides,
        "same_digests": plain.pop("digests") == flow.pop("digests"),
        "plain": plain,
        "flow": flow,
        "outside_stages": idle,
        "orchestration_seconds": idle["flow"] - idle["plain"],
        "orchestration_share": (idle["flow"] - idle["plain"]) / flow["wall"],
        "wall_ratio": flow["wall"] / plain["wall"],
    }
    print(json.dumps(result, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "overhead.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
