"""Rebuilds the demo's models from nothing: `python -m flows.pretrain_demo --seed 1`.

Needs no data and no network: the scenes are drawn. Models that are there, trained from the same seed for as many steps, are
kept, so a broken run goes on where it stopped. All models of a seed take about half an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner

from tasks.demo import pretrain
from tasks.demo.built import is_built, models_of, note_built

TWO_PROCESSES: Any = ProcessPoolTaskRunner(max_workers=2)  # typed by its futures' class, `flow` by their base class
MODELS = (*pretrain.POLICIES, "policy-cot", "scorer", "oracle")  # scorer brings scorer-half

# Not cached: what they write is a folder that the command names.
pretrain_tower = task(cache_policy=NO_CACHE)(pretrain.pretrain_tower)
pretrain_policy = task(cache_policy=NO_CACHE)(pretrain.pretrain_policy)
pretrain_answers = task(cache_policy=NO_CACHE)(pretrain.pretrain_answers)
pretrain_scorer = task(cache_policy=NO_CACHE)(pretrain.pretrain_scorer)
pretrain_oracle = task(cache_policy=NO_CACHE)(pretrain.pretrain_oracle)
measure_models = task(cache_policy=NO_CACHE)(pretrain.measure_models)
measure_answers = task(cache_policy=NO_CACHE)(pretrain.measure_answers)


@flow(name="pretrain-demo", task_runner=TWO_PROCESSES)
def pretrain_demo(
    out: Path,
    seed: int = 0,
    models: Sequence[str] = MODELS,
    steps: pretrain.Steps = pretrain.Steps(),  # noqa: B008  frozen
    scenes: int = 1000,
) -> dict[str, Any]:
    """Train `models` into `out`, measure them on `scenes` new scenes, return the figures.

    Two train side by side, a process and a thread each; the second policy starts when the first is done.
    """
    recipes = {name: recipe_of(name, seed, steps) for name in models}
    new = [name for name in models if not is_built(out, name, recipes[name])]
    with tempfile.TemporaryDirectory() as scratch:
        tower = Path(scratch) / "tower"
        if set(new) - {"policy-cot"}:
            pretrain_tower(tower, steps=steps.tower, seed=seed)
        trained: dict[str, Any] = {
            name: pretrain_policy.submit(tower, out / name, steps=steps.policy, seed=seed, rule=rule)
            for name, rule in pretrain.POLICIES.items()
            if name in new
        }
        if "scorer" in new:
            trained["scorer"] = pretrain_scorer.submit(
                tower, out / "scorer", out / "scorer-half", steps=steps.scorer, seed=seed
            )
        if "oracle" in new:
            trained["oracle"] = pretrain_oracle.submit(tower, out / "oracle", steps=steps.oracle, seed=seed)
        for name, future in trained.items():
            future.result()
            note_built(out, name, recipes[name])
        if "policy-cot" in new:
            pretrain_answers(out / "policy", out / "policy-cot", steps=steps.answers, seed=seed)
            note_built(out, "policy-cot", recipes["policy-cot"])
    file = out / "measured.json"
    figures = measure_models(out, file, scenes=scenes, seed=seed)
    if "policy-cot" in models:
        figures = measure_answers(out / "policy-cot", out / "scorer", file, scenes=scenes, seed=seed)
    return figures


def recipe_of(name: str, seed: int, steps: pretrain.Steps) -> dict[str, int]:
    """What a model's weights depend on, but for the code."""
    kinds = {"scorer": ("tower", "scorer"), "oracle": ("tower", "oracle"), "policy-cot": ("tower", "policy", "answers")}
    return {"seed": seed, **{kind: getattr(steps, kind) for kind in kinds.get(name, ("tower", "policy"))}}


def main() -> None:
    """Run the flow from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the models go; else demo-models/seed-N in the store")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that it runs")
    arguments = parser.parse_args()
    out = arguments.out or models_of(arguments.seed)
    lacking = [name for name in ("policy", "scorer") if name not in arguments.models and not (out / name).is_dir()]
    if "policy-cot" in arguments.models and lacking:
        parser.error(f"policy-cot starts from policy and is measured by scorer: name {' and '.join(lacking)} too")
    quick: dict[str, Any] = {"steps": pretrain.Steps(*[20] * len(pretrain.Steps._fields)), "scenes": 20}
    pretrain_demo(out=out.resolve(), seed=arguments.seed, models=arguments.models, **(quick if arguments.quick else {}))


if __name__ == "__main__":
    main()
