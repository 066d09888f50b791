"""What docs/models.md states of an architecture, each by a measurement on its tiny model; `benchmarks.models` makes the table.

A check returns a short text: `yes`, a count, `no: ...`, or the text of a refusal. Nothing is looked up by name.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from tasks.core.engine.architecture import CannotFork
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.rows import Draw, Row
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.states import sentence_states
from tasks.core.models.value import StateValue, ValueModel, ValueSpec
from tasks.core.search.requests import ANSWER, SENTENCE
from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.step_trainer import TrainingRun
from tasks.core.train.weights import Recipe
from tests.support.plain import answer, plain

SIZES = [(56, 40), (28, 60), (80, 80), (100, 30)]  # tiled differently
PROMPTS = ["Describe the image .", "What is there ?", "There is a dog on the left .", "A dog and a cat ."]
ANSWERS = ["There is a dog on the left.", "Two cats lie by it. A man walks to his house.", "We see many more.", "No."]
LIMIT = 25  # tokens
# Modules that read pixels or sound, as the libraries call them: on purpose not the rule that training goes by.
TOWERS = {
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "visual",
    "vision",
    "audio_tower",
    "vqmodel",
    "image_tower",
    "video_tower",
}


class Case(NamedTuple):
    """An architecture under test."""

    policy: Policy
    decoder: Decoder | GenerateDecoder
    fresh: Callable[[], Policy]  # loads it again, to be trained


def noise(seed: int, width: int, height: int) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = [noise(seed, *size) for seed, size in enumerate(SIZES)]


def opened(folder: Path) -> tuple[Case, str]:
    """A checkpoint as a search loads it, and which decoder it gets.

    Raises:
        PolicyError: it is refused.
    """

    def fresh() -> Policy:
        return load_policy(folder, digest=folder.name)

    policy = fresh()
    try:
        return Case(policy, Decoder(policy), fresh), "engine"
    except CannotFork as why:
        return Case(policy, GenerateDecoder(policy, str(why)), fresh), f"fallback: {why}"


def greedy_exact(case: Case) -> str:
    """Greedy answers in one batch against transformers' `generate`, token for token."""
    inputs = case.policy.inputs(IMAGES, PROMPTS)
    with torch.inference_mode():
        out = case.policy.model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT)
    expected = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in case.policy.end_ids), len(row))
        expected.append(tuple(row[:end]))
    rows = [Row(start.prefix, Draw(0.0, 1.0, ()), ANSWER, LIMIT) for start in case.decoder.start(IMAGES, PROMPTS)]
    tokens = [completion.tokens for completion in answer(case.decoder, rows)]
    return _of_all([ours == theirs for ours, theirs in zip(tokens, expected, strict=True)], "answers")


def forked_exact(case: Case) -> str:
    """Sentences are drawn from shared prefixes, cut, and continued: state and next token as after one plain forward."""
    decoder = case.decoder
    first = answer(decoder, _candidates([start.prefix for start in decoder.start(IMAGES, PROMPTS)], step=0))
    chosen = [first[3 * i + (i + 1) % 3] for i in range(4)]
    second = answer(decoder, _candidates([completion.span.prefix() for completion in chosen], step=1))
    ends = [second[3 * i + (2 * i) % 3] for i in range(4)]
    prefixes = [completion.span.prefix() for completion in ends]
    states = [read.state for read in decoder.read([(prefix, ()) for prefix in prefixes], layer=-1, keep=False)]
    following = answer(decoder, [Row(prefix, Draw(0.0, 1.0, ()), ANSWER, 1) for prefix in prefixes])
    good = []
    for i, (state, after) in enumerate(zip(states, following, strict=True)):
        logits, expected = plain(case.policy, IMAGES[i], PROMPTS[i], chosen[i].tokens + ends[i].tokens)
        token = int(logits.argmax())
        same_token = after.tokens == (() if token in case.policy.end_ids else (token,))
        good.append(same_token and _close(state, expected))
    return _of_all(good, "continuations")


def _candidates(starts: Sequence[Any], step: int) -> list[Row]:
    draws = [Draw(t, 0.9, (step, i, t)) for i in range(len(starts)) for t in (0.0, 0.7, 1.2)]
    return [Row(starts[i // 3], draw, SENTENCE, LIMIT) for i, draw in enumerate(draws)]


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    scale = max(1.0, float(theirs.abs().max()))
    return bool(torch.allclose(ours.float(), theirs.float(), atol=1e-4 * scale, rtol=0.0))


def _of_all(good: Sequence[bool], what: str) -> str:
    return "yes" if all(good) else f"no: {sum(good)} of {len(good)} {what}"


def value_by_states(case: Case) -> str:
    """A head on states that are read again equals the head on states that a search has."""
    turns, ids = list(zip(IMAGES, PROMPTS, strict=True)), _answer_ids(case.policy)
    read = sentence_states(case.policy, turns, ids, layer=-1, batch_size=4)
    states = torch.stack([of_answer[-1] for of_answer in read])
    starts = [start.prefix for start in case.decoder.start(IMAGES, PROMPTS)]
    decoded = case.decoder.read(list(zip(starts, ids, strict=True)), layer=-1, keep=False)
    head = StateValue.of(states, ValueSpec(case.policy.digest, "frozen", -1, "sentence", reads="policy_states"))
    torch.nn.init.normal_(head.net[2].weight, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = head(states), head(torch.stack([item.state for item in decoded]))
    if not float(ours.std()) > 0:
        return "no: all values are equal"
    return _of_all([abs(float(a - b)) < 1e-3 for a, b in zip(ours, theirs, strict=True)], "values")


def _answer_ids(policy: Policy) -> list[list[int]]:
    return [list(policy.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ANSWERS]


class Training(NamedTuple):
    """What one training did."""

    facts: dict[str, float]
    read: list[list[int]]  # ids of each row that was read with gradients, without padding
    changed: frozenset[str]  # names of weights
    policy: Policy


def run_sft(policy: Policy, train: str) -> Training:
    """One step of supervised fine-tuning on two captions."""
    examples = [Example(IMAGES[i], PROMPTS[i], ANSWERS[i]) for i in range(2)]
    return _trained(policy, lambda run: train_sft(policy, examples, run), train)


def run_dpo(policy: Policy, train: str) -> Training:
    """One step of preference optimisation on two pairs."""
    pairs = [PreferencePair(IMAGES[i], PROMPTS[i], ANSWERS[i], ANSWERS[i + 2]) for i in range(2)]
    return _trained(policy, lambda run: train_dpo(policy, pairs, run, beta=0.1), train)


def _trained(policy: Policy, fit: Callable[[TrainingRun], dict[str, float]], train: str) -> Training:
    recipe = Recipe(
        train=train, lr=1e-3, epochs=1.0, batch_size=2, warmup_share=0.0, lora_rank=4, checkpoint_steps=100, seed=3
    )
    before = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
    with tempfile.TemporaryDirectory() as work, _ids_read(policy) as read:
        facts = fit(TrainingRun(recipe, Path(work), lambda step, loss: None))
    after = dict(policy.model.named_parameters())
    changed = frozenset(name for name, weight in before.items() if not torch.equal(weight, after[name]))
    return Training(facts, read, changed, policy)


@contextmanager
def _ids_read(policy: Policy) -> Iterator[list[list[int]]]:
    """Collects the ids of every row that the model reads with gradients."""
    rows: list[list[int]] = []

    def keep(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and options.get("input_ids") is not None:
            for ids, mask in zip(options["input_ids"], options["attention_mask"], strict=True):
                rows.append(ids[mask.bool()].tolist())

    hook = policy.model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def sequence_equal(training: Training, answers: Sequence[str]) -> str:
    """Whether each row is the prompt as it is decoded, an answer's tokens and one end token, and nothing else."""
    policy, good = training.policy, []
    inputs = policy.inputs(IMAGES[:2], PROMPTS[:2])
    prompts = [
        ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    for row in training.read:
        prompt = next((ids for ids in prompts if row[: len(ids)] == ids), None)
        if prompt is None:
            good.append(False)
            continue
        *learned, end = row[len(prompt) :]
        text = policy.tokenizer.decode(learned).strip()
        good.append(text in answers and end in policy.end_ids and not policy.end_ids & set(learned))
    return _of_all(good, "rows") if good else "no: nothing was read"


def lora_coverage(training: Training) -> str:
    """Matrices of the language model that adapters moved, of all; experts that share a tensor count as one."""
    model = training.policy.model
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    outside = {id(p) for name, module in model.named_modules() if _is_tower(name) for p in module.parameters()}
    outside |= {id(p) for module in (head, model.get_input_embeddings()) for p in module.parameters()}
    embeddings = [m for m in decoder.modules() if isinstance(m, torch.nn.Embedding | torch.nn.Conv1d | torch.nn.Conv2d)]
    outside |= {id(p) for module in embeddings for p in module.parameters()}
    matrices = [p for p in decoder.parameters() if p.ndim >= 2 and min(p.shape[-2:]) > 1 and id(p) not in outside]
    moved = sum(names[id(parameter)] in training.changed for parameter in matrices)
    beyond = sum(_is_tower(name) for name in training.changed)
    return f"{moved} of {len(matrices)}" + (f", and {beyond} of a tower" if beyond else "")


def _is_tower(name: str) -> bool:
    return bool(TOWERS & set(re.split(r"\.", name)))


def towers_alone(full: Training, value_policy: Policy) -> str:
    """Whether no tensor of a tower changed, in fine-tuning of all weights and in one step of V."""
    before = {name: weight.detach().clone() for name, weight in value_policy.model.named_parameters()}
    value = ValueModel(value_policy, ValueSpec(value_policy.digest, train="full", layer=-1, state="sentence"))
    optimizer = torch.optim.AdamW(value.parameters().values(), lr=1e-3)
    value(IMAGES[:2], ANSWERS[:2]).square().sum().backward()
    optimizer.step()
    after = dict(value_policy.model.named_parameters())
    by_value = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    towers = [name for name in before if _is_tower(name)]
    if not towers:
        return "no: no tower was found by its name"
    if not by_value or not full.changed:
        return "no: nothing learned"
    moved = sorted(name for name in towers if name in by_value | full.changed)
    return "yes" if not moved else f"no: {len(moved)} of {len(towers)} tensors, such as {moved[0]}"
