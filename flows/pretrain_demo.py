"""Rebuilds the demo's models from nothing: `python -m flows.pretrain_demo --out deployments/demo`.

Needs no data and no network: the scenes are drawn. A quarter of an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from prefect import flow

from tasks.pretrain import measure_models, pretrain_policy, pretrain_scorer, pretrain_tower


@flow(name="pretrain-demo", log_prints=False)
def pretrain_demo(
    out: Path,
    seed: int = 0,
    tower_steps: int = 1000,
    policy_steps: int = 2500,
    scorer_steps: int = 1500,
    scenes: int = 1000,
) -> dict[str, Any]:
    """Train tower, policy and scorer into `out`, measure them on `scenes` new scenes, return the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        tower = pretrain_tower(Path(scratch) / "tower", steps=tower_steps, seed=seed)
        policy = pretrain_policy(tower, out / "policy", steps=policy_steps, seed=seed)
        scorer = pretrain_scorer(tower, out / "scorer", steps=scorer_steps, seed=seed)
    return measure_models(policy, scorer, out / "measured.json", scenes=scenes, seed=seed)


def main() -> None:
    """Run the flow from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("deployments/demo"), help="where policy/ and scorer/ go")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pretrain_demo(out=arguments.out.resolve(), seed=arguments.seed)


if __name__ == "__main__":
    main()
