"""Rebuilds the demo's models from nothing: `python -m flows.pretrain_demo --out deployments/demo`.

Needs no data and no network: the scenes are drawn. Half an hour or more on two CPU cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner

from tasks.demo import pretrain

TWO_PROCESSES: Any = ProcessPoolTaskRunner(max_workers=2)  # typed by its futures' class, `flow` by their base class

# Not cached: what they write is a folder that the command names.
pretrain_tower = task(cache_policy=NO_CACHE)(pretrain.pretrain_tower)
pretrain_policy = task(cache_policy=NO_CACHE)(pretrain.pretrain_policy)
pretrain_answers = task(cache_policy=NO_CACHE)(pretrain.pretrain_answers)
pretrain_scorer = task(cache_policy=NO_CACHE)(pretrain.pretrain_scorer)
measure_models = task(cache_policy=NO_CACHE)(pretrain.measure_models)
measure_answers = task(cache_policy=NO_CACHE)(pretrain.measure_answers)


@flow(name="pretrain-demo", task_runner=TWO_PROCESSES)
def pretrain_demo(
    out: Path,
    seed: int = 0,
    tower_steps: int = 600,
    policy_steps: int = 1800,
    scorer_steps: int = 1500,
    answer_steps: int = 2000,
    scenes: int = 1000,
) -> dict[str, Any]:
    """Train tower, policies and scorer into `out`, measure them on `scenes` new scenes, return the figures.

    Policy and scorer train side by side, a process and a thread each; the second policy starts when the first is done.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tower = pretrain_tower(Path(scratch) / "tower", steps=tower_steps, seed=seed)
        policy = pretrain_policy.submit(tower, out / "policy", steps=policy_steps, seed=seed)
        scorer = pretrain_scorer.submit(tower, out / "scorer", steps=scorer_steps, seed=seed)
        first = policy.result()
        answers = pretrain_answers.submit(first, out / "policy-cot", steps=answer_steps, seed=seed)
        second, judge = answers.result(), scorer.result()
    file = out / "measured.json"
    file.unlink(missing_ok=True)
    measure_models(first, judge, file, scenes=scenes, seed=seed)
    return measure_answers(second, judge, file, scenes=scenes, seed=seed)


def main() -> None:
    """Run the flow from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("deployments/demo"), help="where policy/, policy-cot/ and scorer/ go"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that it runs")
    arguments = parser.parse_args()
    steps = ("tower_steps", "policy_steps", "scorer_steps", "answer_steps", "scenes")
    quick = dict.fromkeys(steps, 20) if arguments.quick else {}
    pretrain_demo(out=arguments.out.resolve(), seed=arguments.seed, **quick)


if __name__ == "__main__":
    main()
