"""Builds the third policy of experiment third-policy from nothing: `python -m flows.pretrain_third`.

Needs no data and no network: the scenes are drawn. The model goes into the store, where the experiment looks for it.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

from flows.experiments.third_policy import built_policy
from tasks.demo.third import ThirdSteps, pretrain_third


def main() -> None:
    """Train the policy, and print its figures and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the checkpoint goes; else the store")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that it runs")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    steps = ThirdSteps(20, 20, 20) if arguments.quick else ThirdSteps()
    folder = (arguments.out or built_policy(arguments.seed)).resolve()
    began = time.perf_counter()
    figures = pretrain_third(folder, steps=steps, seed=arguments.seed)
    took = round(time.perf_counter() - began, 1)
    logging.getLogger(__name__).info(json.dumps({"folder": str(folder), "seconds": took, **figures}, indent=1))


if __name__ == "__main__":
    main()
