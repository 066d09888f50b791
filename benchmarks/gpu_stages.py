"""The stages of the GPU benchmark: each stage's core work on the photographs, timed without what only prepares it.

Every stage takes the `Bench`, works until it is done or its deadline has passed, leaves what the next ones need, and returns an
`Outcome`.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from benchmarks.gpu_measures import Clock, DecodeMeter
from benchmarks.gpu_models import PROMPT, Size, build_policy, build_scorer
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.guides import StateValues, TurnValues, Values
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.models.policy import Policy
from tasks.core.models.sentence_scores import Cosines
from tasks.core.models.states import sentence_states
from tasks.core.models.value import StateValue, ValueModel, ValueSpec
from tasks.core.search.contract import SearchResult, Settings, Task
from tasks.core.search.requests import ANSWER, Search, propose
from tasks.core.search.visvm import visvm
from tasks.core.text import split_sentences
from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.step_trainer import TrainingRun
from tasks.core.train.weights import Recipe
from tasks.core.value.fit import ValueFit
from tasks.core.value.td import transitions

TOP_P, GAMMA, MODE = 0.9, 0.9, "mean_to_go"


@dataclass(frozen=True)
class Scale:
    """How much is done; speeds depend on it, so it is printed."""

    images: int = 64
    in_flight: int = 8
    temperatures: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of answers, and of a search's candidates
    max_new_tokens: int = 128
    max_sentences: int = 5
    max_sentence_tokens: int = 32
    examples: int = 32  # of SFT, one epoch
    pairs: int = 16  # of DPO, one epoch
    batch: int = 8  # of training; DPO takes half of it
    value_steps: int = 8
    answers_read: int = 2  # an image, for V by states


TINY = Scale(2, 2, (0.0, 0.5, 0.9), 40, 2, 20, examples=4, pairs=4, batch=2, value_steps=2, answers_read=2)


@dataclass(frozen=True)
class Outcome:
    """What a stage did."""

    items: str
    seconds: float
    tokens: int | None = None  # drawn, or read
    note: str = ""


@dataclass
class Bench:
    """The policy under test with what the stages have left so far."""

    name: str
    policy: Policy
    size: Size
    scale: Scale
    images: Sequence[Image.Image]
    device: str
    dtype: torch.dtype
    bandwidth: float  # bytes a second
    deadline: float = float("inf")  # of the running stage, on `time.monotonic`
    answers: list[list[str]] = field(default_factory=list)  # of each image that was answered
    scores: list[list[list[float]]] = field(default_factory=list)  # of each answer's sentences
    sampling: float | None = None  # seconds a drawn token
    head: StateValue | None = None
    network: ValueModel | None = None

    def clock(self) -> Clock:
        """A clock for this device."""
        return Clock(self.device)

    @property
    def late(self) -> bool:
        """The stage's time is used up."""
        return time.monotonic() > self.deadline

    def sentences(self) -> list[tuple[int, int, list[str]]]:
        """(image, answer, its sentences) of all answers."""
        return [
            (image, at, [sentence.text for sentence in split_sentences(text)])
            for image, texts in enumerate(self.answers)
            for at, text in enumerate(texts)
        ]


def rollout(bench: Bench) -> Outcome:
    """Whole answers at all temperatures."""
    scale = bench.scale

    def answers() -> Search[SearchResult]:
        result = SearchResult()
        drawn = yield from propose(None, scale.temperatures, max_tokens=scale.max_new_tokens, until=ANSWER, keep=False)
        result.record(0, drawn, {}, None)
        return result.finish("sampled")

    meter = DecodeMeter(bench.policy.model, bench.device)
    with meter.watching():
        results, seconds = _searched(bench, Decoder(bench.policy), lambda: answers(), None)
    bench.answers = [[row.proposal.text for row in result.trace] for result in results]
    drawn = sum(row.proposal.drawn for result in results for row in result.trace)
    bench.sampling = seconds / drawn
    step, share = meter.step_seconds(), meter.share(bench.bandwidth)
    note = (
        f"a decoding step {1000 * step:.1f} ms, {100 * share:.0f} % of the bandwidth limit ({len(meter.steps)} steps)"
    )
    return Outcome(f"{len(results)} of {len(bench.images)} images", seconds, drawn, note)


def score(bench: Bench) -> Outcome:
    """Cosines of all sentences by a CLIP of its own."""
    scores = Cosines(build_scorer(bench.size, bench.device, bench.dtype), Counter())
    clock, every = bench.clock(), bench.sentences()
    pictures = dict(enumerate(bench.images))
    bench.scores = [[] for _ in bench.answers]
    pairs = [(image, text) for image, _, texts in every for text in texts]
    with clock.running():
        values = iter(scores.score(pictures, pairs))
        for image, _, texts in every:
            bench.scores[image].append([float(next(values) or 0.0) for _ in texts])
    return Outcome(f"{len(pairs)} sentences, {len(bench.answers)} images", clock.seconds)


def value_by_states(bench: Bench) -> Outcome:
    """The policy's states at the ends of sentences, then one epoch of a head on them."""
    scale, clock, tokens = bench.scale, bench.clock(), 0
    read: list[tuple[int, list[float], torch.Tensor]] = []

    def count(answers: int, new: int) -> None:
        nonlocal tokens
        tokens += new

    for image, texts in enumerate(bench.answers):
        if read and bench.late:
            break
        some = [at for at, text in enumerate(texts) if split_sentences(text)][: scale.answers_read]
        with clock.running():
            turns = [(bench.images[image], PROMPT)] * len(some)
            states = sentence_states(
                bench.policy, turns, [texts[at] for at in some], layer=-1, batch_size=scale.batch, after_batch=count
            )
        read += [(image, bench.scores[image][at], rows) for at, rows in zip(some, states, strict=True)]
    rows = torch.cat([states for *_, states in read]).to(bench.device)
    bench.head = head = StateValue.of(rows, ValueSpec("none", "frozen", -1, "prefix", reads="policy_states"))
    starts = [0]
    for _, rewards, _ in read:
        starts.append(starts[-1] + len(rewards))
    named = [
        (image, [str(start + step) for step in range(len(rewards))], rewards)
        for (image, rewards, _), start in zip(read, starts, strict=False)
    ]
    data = transitions(named, state="sentence", mode=MODE)
    fit = _fit(lambda pairs: head(rows[[int(name) for _, name in pairs]]), head)
    with clock.running():
        for start in range(0, len(data), scale.batch):
            fit.step(data[start : start + scale.batch])
    return Outcome(f"{len(read)} answers, {len(data)} transitions", clock.seconds, tokens, "tokens read")


def search_by_states(bench: Bench) -> Outcome:
    """VisVM guided by the head on the policy's own states."""
    assert bench.head is not None
    bench.head.net.requires_grad_(False)
    decoder = Decoder(bench.policy, state_layer=-1)
    return _guided(bench, decoder, StateValues(bench.head, decoder))


def value_lora(bench: Bench) -> Outcome:
    """TD(0) of a network of the policy's size with adapters; the fit itself halves what it reads at once if memory runs out."""
    scale = bench.scale
    spec = ValueSpec("none", "lora", -1, "sentence")
    model = ValueModel(build_policy(bench.name, bench.size, bench.device, bench.dtype), spec)
    answers = [(image, texts, bench.scores[image][at]) for image, at, texts in bench.sentences() if texts]
    data = transitions(answers, state="sentence", mode=MODE)
    fit = _fit(lambda pairs: model([bench.images[i] for i, _ in pairs], [text for _, text in pairs]), model)
    done, clock = 0, bench.clock()
    while done < scale.value_steps and not (done and bench.late):
        start = done * scale.batch % max(1, len(data) - scale.batch + 1)
        with clock.running():
            fit.step(data[start : start + scale.batch])
        done += 1
    for parameter in model.parameters().values():
        parameter.requires_grad_(False)
    bench.network = model
    return Outcome(f"{done} steps of {scale.batch} transitions", clock.seconds, model.tokens, "tokens read")


def search_by_network(bench: Bench) -> Outcome:
    """VisVM guided by that network, which reads image and sentence itself."""
    assert bench.network is not None
    return _guided(bench, Decoder(bench.policy), TurnValues(bench.network, Counter()))


def sft(bench: Bench) -> Outcome:
    """Fine-tuning with adapters on the answers with the best mean score."""
    bench.network = None
    best = [Example(bench.images[image], PROMPT, texts[order[-1]]) for image, texts, order in _ranked(bench)][
        : bench.scale.examples
    ]
    clock = bench.clock()
    with _training(bench.scale.batch) as run, clock.running():
        facts = train_sft(bench.policy, best, run)
    return Outcome(f"{len(best)} examples, {facts['steps']:.0f} steps of {bench.scale.batch}", clock.seconds)


def dpo(bench: Bench) -> Outcome:
    """Preference optimisation with adapters, the best answer over the worst."""
    pairs = [
        PreferencePair(bench.images[image], PROMPT, texts[order[-1]], texts[order[0]])
        for image, texts, order in _ranked(bench)
        if texts[order[-1]] != texts[order[0]]
    ][: bench.scale.pairs]
    batch, clock = max(1, bench.scale.batch // 2), bench.clock()
    with _training(batch) as run, clock.running():
        facts = train_dpo(bench.policy, pairs, run, beta=0.1)
    return Outcome(f"{len(pairs)} pairs, {facts['steps']:.0f} steps of {batch}", clock.seconds)


STAGES: dict[str, Callable[[Bench], Outcome]] = {
    "rollout": rollout,
    "score": score,
    "value by states": value_by_states,
    "search, V by states": search_by_states,
    "value, LoRA": value_lora,
    "search, V a network": search_by_network,
    "sft, LoRA": sft,
    "dpo, LoRA": dpo,
}


def _guided(bench: Bench, decoder: Decoder, values: Values) -> Outcome:
    scale = bench.scale
    settings = Settings(
        scale.temperatures,
        end="vote",
        max_sentences=scale.max_sentences,
        max_sentence_tokens=scale.max_sentence_tokens,
        max_new_tokens=scale.max_new_tokens,
    )
    results, seconds = _searched(bench, decoder, lambda: visvm.search(Task(PROMPT, settings)), values)
    drawn = sum(row.proposal.drawn for result in results for row in result.trace)
    assert bench.sampling is not None
    note = f"a drawn token takes {seconds / drawn / bench.sampling:.2f} times as long as in rollout"
    return Outcome(f"{len(results)} of {len(bench.images)} images", seconds, drawn, note)


def _searched(
    bench: Bench, decoder: Decoder, search: Callable[[], Search[SearchResult]], values: Values | None
) -> tuple[list[SearchResult], float]:
    """Results of as many images as there is time for, in order, and the seconds."""

    def jobs() -> Iterator[Job]:
        for index, image in enumerate(bench.images):
            if index < bench.scale.in_flight or not bench.late:
                yield Job(index, partial(_same, image), PROMPT, search(), ("gpu", index))

    scheduler = SearchScheduler(decoder, in_flight=bench.scale.in_flight, top_p=TOP_P, values=values)
    clock = bench.clock()
    with clock.running():
        results = dict(scheduler.run(jobs()))
    return [results[index] for index in sorted(results)], clock.seconds


def _same(image: Image.Image) -> Image.Image:
    return image


def _fit(value: Callable[..., torch.Tensor], model: ValueModel | StateValue) -> ValueFit:
    return ValueFit(
        value=value, parameters=model.parameters(), gamma=GAMMA, mode=MODE, lr=1e-4, target_decay=0.95, method="td0"
    )


def _ranked(bench: Bench) -> list[tuple[int, list[str], list[int]]]:
    """(image, its answers, their indices from the worst mean score to the best), without empty answers."""
    ranked = []
    for image, (texts, scores) in enumerate(zip(bench.answers, bench.scores, strict=True)):
        means = {at: sum(of_answer) / len(of_answer) for at, of_answer in enumerate(scores) if of_answer}
        if means:
            ranked.append((image, texts, sorted(means, key=lambda at, of=means: of[at])))  # type: ignore[misc]
    return ranked


@contextmanager
def _training(batch: int) -> Iterator[TrainingRun]:
    """A training in a folder of its own."""
    recipe = Recipe(
        train="lora",
        lr=1e-4,
        epochs=1,
        batch_size=batch,
        warmup_share=0.0,
        lora_rank=16,
        checkpoint_steps=10_000,
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        yield TrainingRun(recipe, Path(folder), lambda step, loss: None)
