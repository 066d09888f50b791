"""How much of float32's update does training from 16-bit weights make, and how much of it do the 16 bits keep?

    python -m benchmarks.precision              writes benchmarks/results/precision.json and .md, about five minutes
    python -m benchmarks.precision --put        puts the table into docs/training.md

The demo's policy is rounded to the format, so that the start is the same, and trained by every method at the papers'
learning rates, from the rounded weights in float32 and as a policy of that format: same seed, same data, same answers for
GRPO and PPO. The projection of an update d on float32's d32, <d, d32> / <d32, d32>, is taken before the last rounding; 1
is the same update. Two ways to compute: float32, as on a CPU, and autocast to bfloat16, as on CUDA devices (here on the
CPU). `kept`: the projection of the rounded update on the update, what a checkpoint in the policy's own format would hold.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.measured import RESULTS
from flows.profiles.loading import locate
from tasks.core.demo.captions import caption, caption_text
from tasks.core.demo.scenes import draw_scene, sample_scenes
from tasks.core.models import precision
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.value import ValueModel, ValueSpec
from tasks.core.train.answers import Answer, answer_tokens
from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.drawing import Drawn
from tasks.core.train.grpo import Question, Sampling, train_grpo
from tasks.core.train.ppo import PpoSettings, train_ppo
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.step_trainer import TrainingRun
from tasks.core.train.weights import Recipe
from tasks.core.value.fit import ValueFit, run_fit
from tasks.core.value.td import transitions

METHODS = ("sft", "dpo", "grpo", "fisao", "value")
RATES = {"full": 1e-6, "lora": 1e-5}  # the papers'
VALUE_RATES = {"full": 2e-5, "lora": 1e-4}
FORMATS = ("bfloat16", "float16")
IMAGES, PROMPT = 16, "Describe the following image."
Weights = dict[str, torch.Tensor]


def demo_policy() -> Policy:
    """A trained LLaVA of the demo, float32."""
    return load_policy(locate("deployments/demo/policy"), digest="demo")


def in_format(dtype: torch.dtype, start: torch.dtype) -> Policy:
    """The demo's policy with weights rounded to `start`, held in `dtype`."""
    policy = demo_policy()
    policy.model.to(start).to(dtype)
    return policy


def pictures() -> tuple[list[Image.Image], list[str]]:
    """Scenes and a true caption of each."""
    scenes = list(sample_scenes("precision", IMAGES))
    return [draw_scene(scene) for scene in scenes], [
        caption_text(caption(random.Random(i), scene)) for i, scene in enumerate(scenes)
    ]


@contextmanager
def computing(autocast: bool) -> Iterator[None]:
    """Within the context a CPU computes as CUDA devices do, or as it does."""
    plain = precision.computes_in_float32
    precision.computes_in_float32 = lambda device: not autocast  # type: ignore[assignment]
    try:
        yield
    finally:
        precision.computes_in_float32 = plain


def train(policy: Policy, method: str, train_what: str, seed: int = 0) -> dict[str, float]:
    """Train in place; the result is left in float32, before any rounding."""
    images, texts = pictures()
    others = texts[1:] + texts[:1]
    recipe = Recipe(train_what, RATES[train_what], 4.0, 8, 0.03, 16, 10_000, seed, save_dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(recipe, Path(folder), lambda done, loss: None)
        if method == "sft":
            return train_sft(policy, [Example(i, PROMPT, t) for i, t in zip(images, texts, strict=True)], run)
        if method == "dpo":
            pairs = [PreferencePair(i, PROMPT, *two) for i, *two in zip(images, texts, others, strict=True)]
            return train_dpo(policy, pairs, run, beta=0.1)
        if method == "grpo":
            return _grpo(policy, images, (texts, others), run)
        return _ppo(policy, images, others, recipe, Path(folder))


def _grpo(
    policy: Policy, images: Sequence[Image.Image], texts: tuple[Sequence[str], Sequence[str]], run: TrainingRun
) -> dict[str, float]:
    """On the same two answers to every question, whatever the policy would draw."""

    def draw(requests: Sequence[Any], step: int) -> list[list[Drawn]]:
        return [
            [
                Drawn(answer_tokens(policy, of[request.question], ended=False), of[request.question], True)
                for of in texts
            ]
            for request in requests
        ]

    def reward(indices: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        return [float(answer == texts[0][index]) for index, answer in zip(indices, answers, strict=True)]

    return train_grpo(policy, [Question(i, PROMPT) for i in images], reward, draw, run, Sampling(2, 1.0, 64, 0.0))


def _ppo(
    policy: Policy, images: Sequence[Image.Image], texts: Sequence[str], recipe: Recipe, work: Path
) -> dict[str, float]:
    """On the same rewarded words."""
    answers = []
    for index, (image, text) in enumerate(zip(images, texts, strict=True)):
        tokens = answer_tokens(policy, text)
        answers.append(Answer(image, PROMPT, tokens, {len(tokens) // 2: 1.0 if index % 2 else -1.0}))
    settings = PpoSettings(clip=0.2, kl=0.05, gamma=1.0, gae_lambda=0.95, value_weight=0.5, passes=4, iterations=1)
    return train_ppo(policy, lambda iteration: answers, recipe, settings, work=work, on_step=lambda share: None)


def fit_value(policy: Policy, train_what: str) -> Weights:
    """V's update by name, after 8 steps of TD(0), with that of its target network."""
    images, texts = pictures()
    torch.manual_seed(0)
    value = ValueModel(policy, ValueSpec("demo", train_what, -1, "sentence"))
    fit = ValueFit(
        value=lambda pairs: value([images[i] for i, _ in pairs], [text for _, text in pairs]),
        parameters=value.parameters(),
        gamma=0.9,
        mode="mean_to_go",
        lr=VALUE_RATES[train_what],
        target_decay=0.95,
    )
    answers = [
        (i, [f"{part}." for part in text.split(". ")], [0.1 * (i % 5)] * len(text.split(". ")))
        for i, text in enumerate(texts)
    ]
    data = transitions(answers, state="sentence", mode="mean_to_go")
    run_fit(fit, data, plan=fit.plan(data, 16, 2, 0))
    update = {name: p.detach() - fit.start[name] for name, p in fit.parameters.items() if "lora_A" not in name}
    return update | {f"target/{n}": t - fit.start[n] for n, t in fit.target.items() if "lora_A" not in n}


def update_of(dtype: torch.dtype, start: torch.dtype, method: str, train_what: str) -> tuple[Weights, float]:
    """The update before rounding, by name, and what of it the format would keep."""
    policy = in_format(dtype, start)
    if method == "value":
        return fit_value(policy, train_what), 1.0
    before = {name: p.detach().float().clone() for name, p in policy.model.named_parameters()}
    facts = train(policy, method, train_what)
    return {n: p.detach() - before[n] for n, p in policy.model.named_parameters()}, facts["surviving_share"]


def projection(update: Weights, reference: Weights) -> float:
    """<d, d32> / <d32, d32>."""
    dot = sum(float((update[name].double() * other.double()).sum()) for name, other in reference.items())
    return dot / sum(float(other.double().square().sum()) for other in reference.values())


def measure(
    methods: Sequence[str] = METHODS, kinds: Sequence[str] = ("full", "lora"), formats: Sequence[str] = FORMATS
) -> list[dict[str, Any]]:
    """A row for every format, method and kind of training."""
    rows = []
    for name in formats:
        dtype = getattr(torch, name)
        for method in methods:
            for kind in kinds:
                reference, _ = update_of(torch.float32, dtype, method, kind)
                row: dict[str, Any] = {"format": name, "method": method, "train": kind}
                for way, autocast in (("float32", False), ("autocast", True)):
                    with computing(autocast):
                        update, kept = update_of(dtype, dtype, method, kind)
                    row |= {way: projection(update, reference)}
                    if method != "value":  # V is saved in float32
                        row |= {"kept": kept}
                rows.append(row)
                print(row, flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| policy | method | trains | computed in float32 | autocast | kept by the format |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        kept = f"{row['kept']:.3f}" if "kept" in row else "saved in float32"
        figures = " | ".join(f"{row[way]:.3f}" for way in ("float32", "autocast"))
        lines.append(f"| {row['format']} | {row['method']} | {row['train']} | {figures} | {kept} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, or put what was measured into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--put", action="store_true", help="put the table that was measured into docs/training.md")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.put:
        page = Path("docs/training.md")
        head, _, rest = page.read_text().partition("<!-- precision:begin -->")
        tail = rest.partition("<!-- precision:end -->")[2]
        measured = (RESULTS / "precision.md").read_text()
        page.write_text(f"{head}<!-- precision:begin -->\n{measured}<!-- precision:end -->{tail}")
        return
    rows = measure(arguments.methods, formats=arguments.formats)
    (RESULTS / "precision.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "precision.md").write_text(table(rows))


if __name__ == "__main__":
    main()
