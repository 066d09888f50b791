"""Digests of everything that small runs publish: two checkouts that print the same compute the same.

    python -m benchmarks.digests --out before.json       six profiles and some experiments: seed 0, few images, an empty store
    python -m benchmarks.digests --against before.json   run again and list what differs; exit code 1 if anything does

Tables and checkpoints are listed by kind, not by the stage that made them, so that a renamed stage changes nothing. `runs` and
`stages` (times, keys) are left out, and so are the figures of experiments, which hold seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

PROFILES = ("demo", "demo-vimar", "demo-cot", "demo-fisao", "demo-dpo", "demo-grpo")
# Those whose stages no profile has.
EXPERIMENTS = ("judge", "reward-swap", "token-vs-sentence", "value-sanity", "tags", "forgetting")
LEFT_OUT = ("findings",)

SMALL = (
    "seed=0", "data.train.images=400", "data.benchmark.images=400", "sample.images=36", "evaluate.images=24",
    "evaluate.bootstrap=200", "health.images=8", "health.action=warn", "runtime.device=cpu", "runtime.threads=1",
)  # fmt: skip
WITH_VALUE = ("value.min_spearman=-1", "value.min_spread=0")
TWO_ROUNDS = ("rounds=2", "patience=2")  # the second one too, whatever the first one gave


def visloop(home: Path, *arguments: str) -> None:
    """One command on a store; its output goes to stderr if it fails."""
    command = [str(Path(sys.executable).with_name("visloop")), *arguments]
    environment = os.environ | {"VISLOOP_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")


def published(home: Path) -> dict[str, dict[str, list[str]]]:
    """Run's profile -> kind -> digests of its artifacts, sorted."""
    os.environ["VISLOOP_HOME"] = str(home)
    from storage import runs

    digests: dict[str, dict[str, list[str]]] = {}
    for run in runs.list_runs():
        kinds: dict[str, set[str]] = defaultdict(set)
        for call in runs.stage_runs(run.run_id):
            for ref in json.loads(call.outputs).values():
                if ref["kind"] not in LEFT_OUT:
                    kinds[ref["kind"]].add(ref["digest"])
        digests[run.profile] = {kind: sorted(kinds[kind]) for kind in sorted(kinds)}
    return digests


def run_all(home: Path, profiles: tuple[str, ...], experiments: tuple[str, ...]) -> None:
    """All commands on one store."""
    settings = [part for setting in (*SMALL, *WITH_VALUE) for part in ("--set", setting)]
    rounds = [part for setting in TWO_ROUNDS for part in ("--set", setting)]
    for profile in profiles:
        print(profile, file=sys.stderr, flush=True)
        visloop(home, "run", profile, *settings, *rounds)
    for name in experiments:
        print(name, file=sys.stderr, flush=True)
        visloop(home, "experiment", name, "--quick", *settings)


def differences(before: dict[str, dict[str, list[str]]], now: dict[str, dict[str, list[str]]]) -> list[str]:
    """A line for every kind of a run whose artifacts are others."""
    lines = []
    for run in sorted(before.keys() | now.keys()):
        then, here = before.get(run, {}), now.get(run, {})
        for kind in sorted(then.keys() | here.keys()):
            gone, new = (
                set(then.get(kind, ())) - set(here.get(kind, ())),
                set(here.get(kind, ())) - set(then.get(kind, ())),
            )
            if gone or new:
                lines.append(f"{run}: {kind}: {len(gone)} gone, {len(new)} new, {len(here.get(kind, ()))} now")
    return lines


def main() -> None:
    """Run, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the digests; printed if left out")
    parser.add_argument("--against", type=Path, help="digests to compare with")
    parser.add_argument("--profiles", nargs="*", default=PROFILES)
    parser.add_argument("--experiments", nargs="*", default=EXPERIMENTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_all(Path(folder), tuple(arguments.profiles), tuple(arguments.experiments))
        now = published(Path(folder))
    text = json.dumps(now, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    elif not arguments.against:
        print(text)
    if arguments.against:
        before = json.loads(arguments.against.read_text())
        lines = differences({run: before[run] for run in before if run in now}, now)
        count = sum(len(digests) for kinds in now.values() for digests in kinds.values())
        print("\n".join(lines) or f"the same: {count} artifacts of {len(now)} runs")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()
