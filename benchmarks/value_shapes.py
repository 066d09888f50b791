"""One step of value training, computed in the ways people compute it, on the same pairs of sentences.

    released    as VisVM's and ViMaR's trainer calls its model: image and sentence padded to 2,560 tokens, a head over all 2,560
                positions, current and next sentence in a forward each, everything learns, no target network
    trainer     `ValueFit` on a `ValueModel` (image_and_text, full): rows as long as the longest, last token, target network
    mc          the same by Monte Carlo, which needs no value of the next sentence
    states      a head on the policy's own states (policy_states): each answer is read once, then one epoch of TD(0)

The shape is written anew from what the papers' repositories do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image

from benchmarks.search_cases import PROMPT, llava_224
from benchmarks.search_shapes import PADDED, Padding, counted
from tasks.core.demo.captions import caption, caption_text
from tasks.core.demo.scenes import draw_scene, sample_scenes
from tasks.core.models.policy import Policy
from tasks.core.models.states import sentence_states
from tasks.core.models.value import StateValue, ValueModel, ValueSpec
from tasks.core.text import split_sentences
from tasks.core.value.fit import ValueFit
from tasks.core.value.td import Transition, by_answer, published_loss, transitions

SHAPES = ("released", "trainer", "mc", "states")
BATCH, ANSWERS, GAMMA, LR = 4, 4, 0.9, 1e-4
MODE = "bootstrap_forever"  # only pairs of sentences, as the released trainer has them


class Ran(NamedTuple):
    """What one repetition did, and processor seconds."""

    transitions: int
    tokens: int  # useful
    work: dict[str, int]  # what the model was fed
    cpu: float


class Released:
    """The released trainer's step: everything padded, everything learns."""

    def __init__(self, policy: Policy, width: int) -> None:
        """Put a head over all `width` positions on `policy`, which it owns from now on."""
        self.policy = Padding(policy.model.requires_grad_(True), policy.processor, policy.digest, width=width)
        self.head = torch.nn.Linear(width * policy.model.config.get_text_config().hidden_size, 1)
        self.parameters = [*policy.model.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LR)
        self.tokens = 0

    def value(self, images: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        """Values [B]."""
        inputs = self.policy.inputs(images, texts, answer_next=False)
        self.tokens += int(inputs["attention_mask"].sum())
        return self.head(self.policy.hidden(inputs, -1).flatten(start_dim=1))[:, 0]

    def step(self, pictures: Sequence[Image.Image], batch: Sequence[Transition]) -> None:
        """One update."""
        images = [pictures[step.image] for step in batch]
        value = self.value(images, [step.text for step in batch])
        with torch.no_grad():
            following = self.value(images, [str(step.following) for step in batch])
        loss = published_loss(value, torch.tensor([step.reward for step in batch]), following, gamma=GAMMA)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()


class Data(NamedTuple):
    """Images and answers about them."""

    pictures: list[Image.Image]
    texts: list[str]
    steps: list[Transition]  # of all answers


def data() -> Data:
    """Four scenes with a caption of several sentences each; the rewards' values cost no time."""
    scenes = list(sample_scenes("value speed", ANSWERS))
    texts = [caption_text(caption(random.Random(index), scene)) for index, scene in enumerate(scenes)]
    sentences = [[sentence.text for sentence in split_sentences(text)] for text in texts]
    answers = [(index, parts, [0.1 * k for k in range(len(parts))]) for index, parts in enumerate(sentences)]
    return Data([draw_scene(scene) for scene in scenes], texts, transitions(answers, state="sentence", mode=MODE))


def released(given: Data, width: int = PADDED) -> Callable[[], Ran]:
    """One batch in the released shape, each time."""
    trainer, batch = Released(llava_224(), width), given.steps[:BATCH]

    def run() -> int:
        before = trainer.tokens
        trainer.step(given.pictures, batch)
        return trainer.tokens - before

    return lambda: _timed(trainer.policy, run, len(batch))


def trained(given: Data, method: str) -> Callable[[], Ran]:
    """Two batches by `ValueFit`, each time."""
    model = ValueModel(llava_224(), ValueSpec("none", train="full", layer=-1, state="sentence"))
    fit = _fit(lambda pairs: model([given.pictures[i] for i, _ in pairs], [text for _, text in pairs]), model, method)
    steps = given.steps[: 2 * BATCH]

    def run() -> int:
        before = model.tokens
        for start in range(0, len(steps), BATCH):
            fit.step(steps[start : start + BATCH])
        return model.tokens - before

    return lambda: _timed(model.policy, run, len(steps))


def of_states(given: Data) -> Callable[[], Ran]:
    """All answers read, and one epoch of a fresh head on their states, each time."""
    policy = llava_224()
    spec = ValueSpec("none", train="frozen", layer=-1, state="prefix", reads="policy_states")

    def run() -> int:
        read: list[int] = []
        states = sentence_states(
            policy,
            [(picture, PROMPT) for picture in given.pictures],
            given.texts,
            layer=-1,
            batch_size=BATCH,
            after_batch=lambda answers, tokens: read.append(tokens),
        )
        rows = torch.cat(states)
        at, names = _named(given.steps)
        head = StateValue.of(rows, spec)
        fit = _fit(lambda pairs: head(rows[[at[name] for _, name in pairs]]), head, "td0")
        for start in range(0, len(names), BATCH):
            fit.step(names[start : start + BATCH])
        return sum(read)

    return lambda: _timed(policy, run, len(given.steps))


def _named(steps: Sequence[Transition]) -> tuple[dict[str, int], list[Transition]]:
    """Rows of the states by name, and the transitions between names instead of texts."""
    at: dict[str, int] = {}
    named = []
    for answer in by_answer(steps, mode=MODE):
        names = [f"{answer[0].image}/{k}" for k in range(len(answer) + 1)]
        at |= {name: len(at) + k for k, name in enumerate(names)}
        named += [Transition(step.image, names[k], names[k + 1], step.rewards) for k, step in enumerate(answer)]
    return at, named


def _fit(value: Callable[..., torch.Tensor], model: ValueModel | StateValue, method: str) -> ValueFit:
    return ValueFit(
        value=value,
        parameters=model.parameters(),
        gamma=GAMMA,
        mode=MODE,
        lr=LR,
        target_decay=0.95,
        method=method,
    )


def _timed(policy: Policy, run: Callable[[], int], count: int) -> Ran:
    with counted([policy]) as work:
        cpu = time.process_time()
        tokens = run()
        cpu = time.process_time() - cpu
    return Ran(count, tokens, {"positions" if name == "prefill_tokens" else name: n for name, n in work.items()}, cpu)
