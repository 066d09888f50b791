"""One guided search, computed in the ways people compute it; all draw the same tokens, so they differ in work only.

    kept_cache   the strongest use of `generate`: the prompt's key-value cache is kept between sentences and repeated over the
                 candidates; V reads each image once
    kept_cache_8 the same with the candidates of 8 images in one call
    released     as VisVM's and ViMaR's released code calls its models: batch 1; each candidate's image is encoded and its
                 prompt and answer so far prefilled again; values one at a time, each reading the image again
    generate     well-written `generate`: all candidates of an image's step in one call, rows expanded as by
                 `num_return_sequences`; their values in one batch
    generate_8   the same with the candidates of 8 images in one call
    engine_1     this project's engine, one image at a time
    engine       the same with 8 images in flight

The shapes are written anew from what the papers' repositories do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image

from benchmarks.generate_shapes import KeptCache, OneCallAStep, OneCallEach
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.guides import StateValues, TurnValues, Values, WholeTurnValues
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.models.policy import Policy
from tasks.core.models.value import StateValue, ValueModel
from tasks.core.search.contract import SearchFunction, Settings, Task
from tasks.core.search.requests import Candidate
from tasks.core.search.visvm import visvm

IN_FLIGHT = 8
TOP_P = 0.9
PADDED = 2560  # tokens that the released value model pads its input to
SHAPES = ("kept_cache", "kept_cache_8", "released", "generate", "generate_8", "engine_1", "engine")


@dataclass(frozen=True)
class Case:
    """What is searched, whatever the shape."""

    policy: Policy
    value: ValueModel | StateValue
    images: Sequence[Image.Image]
    prompt: str
    settings: Settings


class Ran(NamedTuple):
    """Captions in the images' order, the work done, and seconds on the processor and on the wall."""

    captions: list[str]
    work: dict[str, int]
    cpu: float
    wall: float


class OneByOne(WholeTurnValues):
    """The value of each candidate by a forward of its own."""

    def value(self, images: Any, items: Sequence[tuple[Any, str, Candidate]]) -> list[float]:
        """Values, as `Values` has them."""
        return [v for item in items for v in super(OneByOne, self).value(images, [item])]


@dataclass(frozen=True)
class Padding(Policy):
    """A policy whose inputs are padded on the left to a given width, as the released value model's are."""

    width: int = PADDED

    def inputs(
        self, images: Sequence[Image.Image], texts: Sequence[str], *, answer_next: bool = True
    ) -> dict[str, Any]:
        """As the policy's, but wider."""
        inputs = super().inputs(images, texts, answer_next=answer_next)
        more = self.width - inputs["input_ids"].shape[1]
        fills = {"input_ids": self.pad_id, "attention_mask": 0}
        return inputs | {
            name: torch.nn.functional.pad(inputs[name], (more, 0), value=fill) for name, fill in fills.items()
        }


def shaped(shape: str, case: Case) -> SearchScheduler:
    """A scheduler that serves searches in one of `SHAPES`.

    Raises:
        ValueError: for another shape, or one that reads a network where V is a head on the policy's states.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}: want one of {', '.join(SHAPES)}")
    work: Counter[str] = Counter()
    values: Values
    if shape.startswith("engine"):
        in_flight = 1 if shape == "engine_1" else IN_FLIGHT
        if isinstance(case.value, StateValue):
            decoder = Decoder(case.policy, state_layer=case.value.spec.layer)
            values = StateValues(case.value, decoder)
        else:
            decoder, values = Decoder(case.policy), TurnValues(case.value, work)
        return SearchScheduler(decoder, in_flight=in_flight, top_p=TOP_P, values=values)
    if isinstance(case.value, StateValue):
        raise ValueError(f"shape {shape} has values of image and text: give a ValueModel, not a StateValue")
    why = f"measured in the shape {shape}"
    if shape == "released":
        return SearchScheduler(
            OneCallEach(case.policy, why), in_flight=1, top_p=TOP_P, values=OneByOne(case.value, work)
        )
    in_flight = 1 if shape in ("generate", "kept_cache") else IN_FLIGHT
    if shape.startswith("kept_cache"):
        values = TurnValues(case.value, work)
        return SearchScheduler(KeptCache(case.policy, why), in_flight=in_flight, top_p=TOP_P, values=values)
    values = WholeTurnValues(case.value, work)
    return SearchScheduler(OneCallAStep(case.policy, why), in_flight=in_flight, top_p=TOP_P, values=values)


def measured(shape: str, case: Case, search: SearchFunction = visvm.search) -> Ran:
    """One search of all of a case's images in one shape."""
    policies = [case.policy] + ([case.value.policy] if isinstance(case.value, ValueModel) else [])
    with counted(policies) as work:
        cpu, wall = time.process_time(), time.perf_counter()
        scheduler = shaped(shape, case)
        jobs = [
            Job(index, partial(_same, image), case.prompt, search(Task(case.prompt, case.settings)), ("speed", index))
            for index, image in enumerate(case.images)
        ]
        results = dict(scheduler.run(jobs))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    work["drawn_tokens"] = sum(row.proposal.drawn for result in results.values() for row in result.trace)
    return Ran([results[index].text for index in range(len(case.images))], dict(sorted(work.items())), cpu, wall)


def _same(image: Image.Image) -> Image.Image:
    return image


@contextmanager
def counted(policies: Sequence[Policy]) -> Iterator[Counter[str]]:
    """Count what the models are fed, whoever feeds them: the first is the policy, a second one the value model's backbone.

    Tokens are columns times rows: padding counts, and so do rows that are over but still in a batch.
    """
    work: Counter[str] = Counter()

    def seen(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        work["vision_encodes"] += len(pixels)

    def fed(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            rows, columns = kwargs["inputs_embeds"].shape[:2]
            kind = name or ("decode" if columns == 1 else "prefill")
            work[f"{kind}_tokens"] += rows * columns
            work["forwards"] += 1
            work["value_forwards"] += kind == "value"

        return hook

    handles = []
    for policy, name in zip(policies, ("", "value"), strict=False):
        inner = policy.model.model
        handles.append(inner.vision_tower.register_forward_pre_hook(seen, with_kwargs=True))
        handles.append(inner.language_model.register_forward_pre_hook(fed(name), with_kwargs=True))
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()
