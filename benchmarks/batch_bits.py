"""How many rows get another text when the batch has another shape, in float32 and in bfloat16.

    python -m benchmarks.batch_bits            prints a table; a CPU and the demo's policy

Sixty rows, three of each of twenty images: one greedy and two sampled, with their own seeds. The reference decodes sixteen
images at once without a budget; the others fewer images at once (`runtime.batch_size`) or with a bounded cache
(`runtime.token_budget`). A row differs if any of its tokens does.
"""

from __future__ import annotations

import torch

from flows.profiles.loading import locate
from tasks.core.demo.scenes import draw_scene, sample_scenes
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.rows import Draw, Row
from tasks.core.models.policy import Policy, load_policy
from tasks.core.search.requests import ANSWER

IMAGES, LIMIT, WIDE = 20, 60, 16
TEMPERATURES = (0.0, 0.7, 1.0)
PROMPT = "Describe the image in detail."
SHAPES = ((8, None), (3, None), (1, None), (WIDE, 900), (WIDE, 300))


def texts(policy: Policy, at_once: int, budget: int | None) -> list[tuple[int, ...]]:
    """The tokens of every row."""
    decoder = Decoder(policy, kv_token_budget=budget)
    images = [draw_scene(scene) for scene in sample_scenes("batch bits", IMAGES)]
    tokens: dict[int, tuple[int, ...]] = {}
    for first in range(0, IMAGES, at_once):
        part = images[first : first + at_once]
        for at, start in enumerate(decoder.start(part, [PROMPT] * len(part)), first):
            numbers = [at * len(TEMPERATURES) + j for j in range(len(TEMPERATURES))]
            draws = [Draw(t, 1.0, ("bits", n)) for t, n in zip(TEMPERATURES, numbers, strict=True)]
            decoder.add([Row(start.prefix, d, ANSWER, LIMIT, owner=n) for d, n in zip(draws, numbers, strict=True)])
        while not decoder.idle:
            tokens |= {row.owner: tuple(completion.tokens) for row, completion in decoder.advance()}
    return [tokens[number] for number in sorted(tokens)]


def main() -> None:
    """Print the share of rows that differ, for each dtype and shape."""
    torch.set_num_threads(1)
    folder = locate("deployments/demo/policy")
    for dtype in ("float32", "bfloat16"):
        policy = load_policy(folder, digest="demo", dtype=dtype)
        reference = texts(policy, WIDE, None)
        length = sum(map(len, reference)) / len(reference)
        print(f"{dtype}: {len(reference)} rows, {length:.1f} tokens on average")
        for at_once, budget in SHAPES:
            other = texts(policy, at_once, budget)
            differ = sum(a != b for a, b in zip(reference, other, strict=True))
            print(f"  batch_size {at_once}, token_budget {budget or 0}: {differ} of {len(reference)} rows differ")


if __name__ == "__main__":
    main()
