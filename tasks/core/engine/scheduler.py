"""Runs many searches at once and serves their requests in batches: continuous batching over images.

A search that waits for continuations has its rows in the decoder's batch; requests for scores, values or reading are served
together, those of one kind in one batch; when a search finishes, the next image is admitted.
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
from tasks.core.engine.outside import generate_answers
from tasks.core.engine.prompts import Prompts
from tasks.core.engine.rows import Completion, Draw, Row, sentences_of
from tasks.core.models.in_context import score_after
from tasks.core.models.object_list import Completeness
from tasks.core.models.sentence_scores import Scores
from tasks.core.search.contract import SearchResult
from tasks.core.search.requests import (
    ANSWER,
    Ask,
    Candidate,
    Complete,
    Force,
    Generate,
    Propose,
    Request,
    Score,
    Search,
    SplitSentences,
    Value,
)
from tasks.core.seeds import Part


@dataclass(frozen=True)
class Job:
    """One search for one image; the image is not loaded before the search is admitted."""

    index: int
    image: Callable[[], Image.Image]
    prompt: str
    search: Search[SearchResult]
    seed: tuple[Part, ...]
    draws: Sequence[tuple[Part, ...]] | None = None  # seed parts of each candidate; None: (request number, candidate)


@dataclass(eq=False)
class _Running:
    job: Job
    image: Image.Image
    prompt: Prompt
    proposals: int = 0  # Propose requests so far
    request: Propose | Ask | None = None  # being decoded
    rows: int = 0  # of that request
    completions: dict[int, Completion] = field(default_factory=dict)  # of its finished rows


class SearchScheduler:
    """Serves searches with one decoder, one scorer and one value model."""

    def __init__(
        self,
        decoder: Decoder | GenerateDecoder,
        *,
        in_flight: int,
        top_p: float,
        scores: Scores | None = None,
        values: Values | None = None,
    ) -> None:
        """`in_flight`: searches that run at once; `top_p`: nucleus mass that draws keep."""
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}: want at least one image at once")
        self.decoder, self.in_flight, self.top_p = decoder, in_flight, top_p
        self.scores, self.values = scores, values
        self.objects: Completeness | None = None
        self._reader: Any = decoder  # the prefixes of the two decoders differ in type
        self.counters: Counter[str] = Counter()
        self._prompts = Prompts(decoder.policy, answer_next=True)
        self._running: dict[int, _Running] = {}
        self._ready: list[tuple[_Running, Request]] = []
        self._results: list[tuple[int, SearchResult]] = []

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, SearchResult]]:
        """(index of a job, its result), each as soon as it is finished."""
        waiting, more = iter(jobs), True
        while more or self._running:
            # Several at a time, so that their prompts are read in one batch.
            if more and len(self._running) <= 0.75 * self.in_flight:
                free = self.in_flight - len(self._running)
                admitted = list(islice(waiting, free))
                more = len(admitted) == free
                self._admit(admitted)
            while self._ready:
                self._serve()
            for row, completion in self.decoder.advance():
                running, index = row.owner
                self._collect(running, index, completion)
            yield from self._results
            self._results = []

    def _admit(self, jobs: Sequence[Job]) -> None:
        images = [job.image() for job in jobs]
        prompts = self._reader.start(images, [job.prompt for job in jobs]) if jobs else []
        for job, image, prompt in zip(jobs, images, prompts, strict=True):
            self._running[job.index] = running = _Running(job, image, prompt)
            self._resume(running, None)

    def _resume(self, running: _Running, answer: Any) -> None:
        """Send a search the answer to its request; it yields the next request, or finishes."""
        try:
            self._ready.append((running, running.job.search.send(answer)))
        except StopIteration as stopped:
            self._results.append((running.job.index, stopped.value))
            del self._running[running.job.index]
            for guide in (guide for guide in (self.scores, self.values, self.objects) if guide is not None):
                guide.forget(running.job.index)

    def _serve(self) -> None:
        """Serve all waiting requests, those of one kind together; requests that decode only queue their rows."""
        ready, self._ready = self._ready, []
        kinds: dict[type, list[tuple[_Running, Any]]] = defaultdict(list)
        for running, request in ready:
            kinds[type(request)].append((running, request))
        serve: dict[type, Callable[[list[tuple[_Running, Any]]], None]] = {
            Propose: self._propose,
            Ask: self._ask,
            Force: self._force,
            SplitSentences: self._split,
            Score: self._score,
            Value: self._value,
            Complete: self._complete,
            Generate: self._generate,
        }
        for kind, requests in kinds.items():
            if kind not in serve:
                raise TypeError(f"a search asked for a {kind.__name__}: want one of the contract's requests")
            serve[kind](requests)

    def _propose(self, requests: list[tuple[_Running, Propose]]) -> None:
        for running, request in requests:
            names = running.job.draws or [(running.proposals, i) for i in range(len(request.temperatures))]
            prefix = _prefix(running, request.after)
            self._decode(running, request, [
                Row(prefix, Draw(t, self.top_p, (*running.job.seed, *name)), request.until, request.max_tokens,
                    request.keep, owner=(running, index))
                for index, (t, name) in enumerate(zip(request.temperatures, names, strict=True))
            ])  # fmt: skip

    def _ask(self, requests: list[tuple[_Running, Ask]]) -> None:
        items = [self._after_image(running, request.question) for running, request in requests]
        unread = [pair for pair, item in zip(requests, items, strict=True) if item is None]
        read = iter(self._reader.read([item for item in items if item is not None]))
        started = iter(self._reader.start([r.image for r, _ in unread], [request.question for _, request in unread]))
        for (running, request), item in zip(requests, items, strict=True):
            prefix = next(started).prefix if item is None else next(read)
            self._decode(running, request, [
                Row(prefix, Draw(0.0, 1.0, ()), ANSWER, request.max_tokens, keep=False, owner=(running, 0), fresh=True)
            ])  # fmt: skip

    def _after_image(self, running: _Running, text: str) -> tuple[Any, Sequence[int]] | None:
        """The prefix that ends with the image and the tokens to read there for another text; None if it must be read again."""
        if not isinstance(self.decoder, Decoder):
            return None
        prefix = self._prompts.image_prefix(running.prompt, running.job.prompt)
        tail = self._prompts.tail(text, running.job.prompt)
        return None if prefix is None or tail is None else (prefix, tail)

    def _decode(self, running: _Running, request: Propose | Ask, rows: Sequence[Row]) -> None:
        if not rows:
            raise ValueError("a search asked for continuations at no temperature: want at least one")
        running.request, running.completions, running.rows = request, {}, len(rows)
        running.proposals += isinstance(request, Propose)
        self.decoder.add(rows)

    def _collect(self, running: _Running, index: int, completion: Completion) -> None:
        """Keep the completion of one row; the search resumes when all rows of its request are finished."""
        running.completions[index] = completion
        if len(running.completions) < running.rows:
            return
        request, completions = running.request, [running.completions[i] for i in range(running.rows)]
        if isinstance(request, Ask):
            self._resume(running, completions[0].text)
        elif request is not None:
            self._resume(running, [
                Candidate(row.text, temperature, row.ended, row.drawn, row.span, row.space)
                for temperature, row in zip(request.temperatures, completions, strict=True)
            ])  # fmt: skip

    def _force(self, requests: list[tuple[_Running, Force]]) -> None:
        items = []
        for running, request in requests:
            policy = self.decoder.policy
            follows = request.after is not None and request.after.text
            text = request.text
            ids = policy.continued_ids(text, space=request.space) if follows else policy.answer_ids(text)
            items.append((_prefix(running, request.after), ids))
        for (running, request), prefix in zip(requests, self._reader.read(items), strict=True):
            self._resume(
                running, Candidate(request.text, 0.0, ended=False, drawn=0, handle=prefix, space=request.space)
            )

    def _split(self, requests: list[tuple[_Running, SplitSentences]]) -> None:
        for running, request in requests:
            self._resume(running, sentences_of(request.answer, self.decoder.token_texts.text))

    def _score(self, requests: list[tuple[_Running, Score]]) -> None:
        if self.scores is None:
            raise ValueError("a search asked for scores and there is no scorer: give one, or name what it needs")
        flat = [(running.job.index, *pair) for running, request in requests for pair in request.items]
        self._distribute(requests, score_after(self.scores, self._images(), flat))

    def _complete(self, requests: list[tuple[_Running, Complete]]) -> None:
        if self.objects is None:
            raise ValueError("a search asked for completeness and no objects were detected: name objects as a need")
        flat = [(running.job.index, *item) for running, request in requests for item in request.items]
        self._distribute(requests, self.objects.shares(self._images(), flat))

    def _value(self, requests: list[tuple[_Running, Value]]) -> None:
        if self.values is None:
            raise ValueError("a search asked for values and there is no value model: give one, or name what it needs")
        flat = [(running.job.index, *item) for running, request in requests for item in request.items]
        self._distribute(requests, self.values.value(self._images(), flat))

    def _distribute(self, requests: list[tuple[_Running, Any]], answers: Sequence[Any]) -> None:
        """Give each search its share of the answers, one for each of its items, in order."""
        left = iter(answers)
        for running, request in requests:
            self._resume(running, list(islice(left, len(request.items))))

    def _generate(self, requests: list[tuple[_Running, Generate]]) -> None:
        # One by one: a batched beam search runs until its slowest row finishes, which would change the token count.
        for running, request in requests:
            (answer,) = generate_answers(
                self.decoder.policy, [running.image], [running.job.prompt],
                method=request.method, options=dict(request.options), max_new_tokens=request.max_tokens,
            )  # fmt: skip
            self.counters["decode_tokens"] += answer.drawn
            self._resume(running, Candidate(answer.text, 0.0, answer.ended, answer.drawn))

    def _images(self) -> dict[Any, Image.Image]:
        return {index: running.image for index, running in self._running.items()}


def _prefix(running: _Running, after: Candidate | None) -> Any:
    """The prefix to continue from: the end of a candidate, or of the prompt."""
    if after is None:
        return running.prompt.prefix
    if after.handle is None:
        raise ValueError(f"{after.text[:40]!r} was not kept: propose a candidate with keep to continue from it")
    return after.handle.prefix()
