"""Runs many searches at once and serves their requests in batches: continuous batching over images.

A search that waits for sentences has its rows in the decoder's batch; all that ask for scores, values or readings are served
together; where one has finished, the next image is admitted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from PIL import Image

from tasks.core.engine.architecture import Prompt
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.guides import Values
from tasks.core.engine.outside import answer_outside
from tasks.core.engine.prompts import Prompts
from tasks.core.engine.rows import Draw, Row, Said, sentences_of
from tasks.core.models.sentence_scores import Scores
from tasks.core.search.contract import (
    ANSWER,
    Ask,
    Candidate,
    Found,
    Generate,
    Reply,
    Request,
    Say,
    Score,
    Split,
    Value,
    Write,
)
from tasks.core.seeds import Part


@dataclass(frozen=True)
class Job:
    """One answer to be written; nothing of it is loaded before it is admitted."""

    index: int
    image: Callable[[], Image.Image]
    prompt: str
    search: Ask[Found]
    seed: tuple[Part, ...]
    # Names of a request's draws, where they are not (number of the request, candidate).
    draws: Sequence[tuple[Part, ...]] | None = None


@dataclass(eq=False)
class _Running:
    job: Job
    image: Image.Image
    prompt: Prompt
    asked: int = 0  # requests for continuations so far
    heard: dict[int, Said] = field(default_factory=dict)
    request: Say | Reply | None = None
    rows: int = 0  # of that request


class Desk:
    """Serves searches with one decoder and its guides."""

    def __init__(
        self,
        decoder: Decoder | GenerateDecoder,
        *,
        in_flight: int,
        top_p: float,
        scores: Scores | None = None,
        values: Values | None = None,
    ) -> None:
        """`in_flight`: images worked on at once; `top_p`: nucleus mass that draws keep."""
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}: want at least one image at once")
        self.decoder, self.in_flight, self.top_p = decoder, in_flight, top_p
        self.scores, self.values = scores, values
        self._reader: Any = decoder  # the decoders' places differ, and only they look into them
        self.counters: Counter[str] = Counter()
        self._prompts = Prompts(decoder.policy, answer_next=True)
        self._running: dict[int, _Running] = {}
        self._ready: list[tuple[_Running, Request]] = []
        self._found: list[tuple[int, Found]] = []

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Found]]:
        """(job's index, what it found), each as soon as it is there."""
        waiting, more = iter(jobs), True
        while more or self._running:
            # A few at a time: prompts are read together.
            if more and len(self._running) <= 0.75 * self.in_flight:
                free = self.in_flight - len(self._running)
                admitted = list(islice(waiting, free))
                more = len(admitted) == free
                self._admit(admitted)
            while self._ready:
                self._serve()
            for row, said in self.decoder.advance():
                running, index = row.owner
                self._hear(running, index, said)
            yield from self._found
            self._found = []

    def _admit(self, jobs: Sequence[Job]) -> None:
        images = [job.image() for job in jobs]
        prompts = self._reader.start(images, [job.prompt for job in jobs]) if jobs else []
        for job, image, prompt in zip(jobs, images, prompts, strict=True):
            self._running[job.index] = running = _Running(job, image, prompt)
            self._go_on(running, None)

    def _go_on(self, running: _Running, answer: Any) -> None:
        """Send a search its answer: it asks for the next thing, or is done."""
        try:
            self._ready.append((running, running.job.search.send(answer)))
        except StopIteration as done:
            self._found.append((running.job.index, done.value))
            del self._running[running.job.index]
            for guide in (self.scores, self.values):
                if guide is not None:
                    guide.forget(running.job.index)

    def _serve(self) -> None:
        """Serve all requests there are, those of one kind together; what decodes is only handed on."""
        ready, self._ready = self._ready, []
        kinds: dict[type, list[tuple[_Running, Any]]] = defaultdict(list)
        for running, request in ready:
            kinds[type(request)].append((running, request))
        serve: dict[type, Callable[[list[tuple[_Running, Any]]], None]] = {
            Say: self._say,
            Reply: self._reply,
            Write: self._write,
            Split: self._split,
            Score: self._score,
            Value: self._value,
            Generate: self._generate,
        }
        for kind, asked in kinds.items():
            if kind not in serve:
                raise TypeError(f"a search asked for a {kind.__name__}: want one of the contract's requests")
            serve[kind](asked)

    def _say(self, asked: list[tuple[_Running, Say]]) -> None:
        for running, request in asked:
            names = running.job.draws or [(running.asked, i) for i in range(len(request.temperatures))]
            place = _place(running, request.after)
            self._decode(running, request, [
                Row(place, Draw(t, self.top_p, (*running.job.seed, *name)), request.until, request.max_tokens,
                    request.keep, owner=(running, index))
                for index, (t, name) in enumerate(zip(request.temperatures, names, strict=True))
            ])  # fmt: skip

    def _reply(self, asked: list[tuple[_Running, Reply]]) -> None:
        items = [self._after_image(running, request.question) for running, request in asked]
        anew = [one for one, item in zip(asked, items, strict=True) if item is None]
        read = iter(self._reader.read([item for item in items if item is not None]))
        started = iter(self._reader.start([r.image for r, _ in anew], [request.question for _, request in anew]))
        for (running, request), item in zip(asked, items, strict=True):
            place = next(started).place if item is None else next(read)
            self._decode(running, request, [
                Row(place, Draw(0.0, 1.0, ()), ANSWER, request.max_tokens, keep=False, owner=(running, 0))
            ])  # fmt: skip

    def _after_image(self, running: _Running, text: str) -> tuple[Any, Sequence[int]] | None:
        """Where a search's image ends, and what to read there for another text; None if it must be read anew."""
        if not isinstance(self.decoder, Decoder):
            return None
        place = self._prompts.image_place(running.prompt, running.job.prompt)
        tail = self._prompts.tail(text, running.job.prompt)
        return None if place is None or tail is None else (place, tail)

    def _decode(self, running: _Running, request: Say | Reply, rows: Sequence[Row]) -> None:
        if not rows:
            raise ValueError("a search asked for continuations at no temperature: want at least one")
        running.request, running.heard, running.rows = request, {}, len(rows)
        running.asked += isinstance(request, Say)
        self.decoder.add(rows)

    def _hear(self, running: _Running, index: int, said: Said) -> None:
        """One row is over; the search goes on with the last of them."""
        running.heard[index] = said
        if len(running.heard) < running.rows:
            return
        request, heard = running.request, [running.heard[i] for i in range(running.rows)]
        if isinstance(request, Reply):
            self._go_on(running, heard[0].text)
        elif request is not None:
            self._go_on(running, [
                Candidate(one.text, temperature, one.ended, one.drawn, one.spoken)
                for temperature, one in zip(request.temperatures, heard, strict=True)
            ])  # fmt: skip

    def _write(self, asked: list[tuple[_Running, Write]]) -> None:
        items = []
        for running, request in asked:
            before = " " if request.after is not None and request.after.text else ""
            ids = self.decoder.policy.tokenizer(before + request.text, add_special_tokens=False).input_ids
            items.append((_place(running, request.after), ids))
        for (running, request), place in zip(asked, self._reader.read(items), strict=True):
            self._go_on(running, Candidate(request.text, 0.0, ended=False, drawn=0, place=place))

    def _split(self, asked: list[tuple[_Running, Split]]) -> None:
        for running, request in asked:
            self._go_on(running, sentences_of(request.answer, self.decoder.names.text))

    def _score(self, asked: list[tuple[_Running, Score]]) -> None:
        if self.scores is None:
            raise ValueError("a search asked for scores and there is no scorer: give one, or name what it needs")
        flat = [(running.job.index, text) for running, request in asked for text in request.texts]
        self._spread(asked, self.scores.score(self._images(), flat), lambda request: len(request.texts))

    def _value(self, asked: list[tuple[_Running, Value]]) -> None:
        if self.values is None:
            raise ValueError("a search asked for values and there is no value model: give one, or name what it needs")
        flat = [(running.job.index, before, one) for running, request in asked for before, one in request.items]
        self._spread(asked, self.values.value(self._images(), flat), lambda request: len(request.items))

    def _spread(self, asked: list[tuple[_Running, Any]], answers: Sequence[Any], count: Callable[[Any], int]) -> None:
        """Give each search its share of the answers, in order."""
        left = iter(answers)
        for running, request in asked:
            self._go_on(running, list(islice(left, count(request))))

    def _generate(self, asked: list[tuple[_Running, Generate]]) -> None:
        # One at a time: a beam search in a batch draws until its slowest row is done, and the count would tell.
        for running, request in asked:
            (answer,) = answer_outside(
                self.decoder.policy, [running.image], [running.job.prompt],
                method=request.method, options=dict(request.options), max_new_tokens=request.max_tokens,
            )  # fmt: skip
            self.counters["decode_tokens"] += answer.drawn
            self._go_on(running, Candidate(answer.text, 0.0, answer.ended, answer.drawn))

    def _images(self) -> dict[Any, Image.Image]:
        return {index: running.image for index, running in self._running.items()}


def _place(running: _Running, after: Candidate | None) -> Any:
    """Where to go on: a candidate's end, or the prompt's."""
    if after is None:
        return running.prompt.place
    if after.place is None:
        raise ValueError(f"{after.text[:40]!r} was not kept: a candidate to go on from is said with keep")
    return after.place.place()
