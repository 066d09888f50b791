"""Stage 5, search: better captions than the policy's own, with every candidate that was looked at.

One stage for all strategies, greedy included, so that a baseline differs from the method in nothing but its choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Caption, Sample, SearchStep
from tasks.caching import WHOLE, Shard, StageInputError, check_nothing_lost, stage
from tasks.configs import PolicyConfig, RuntimeConfig, SearchConfig
from tasks.core.rewards import shape_scores
from tasks.loading import load_images, load_policy, load_scorer, load_value
from tasks.progress import progress

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.engine.decoder import Decoder
    from tasks.core.models.scorer import Scorer
    from tasks.core.models.value import ValueModel
    from tasks.core.search.contract import Found


@stage(sharded_by="samples")
def search(
    config: SearchConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    *,
    seed: int,
    scorer: ArtifactRef | None = None,
    tau: float | None = None,
    value: ArtifactRef | None = None,
    backbone: ArtifactRef | None = None,
    runtime: RuntimeConfig,
    shard: Shard = WHOLE,
    label: str = "",
) -> StageOutput:
    """Captions of the samples by one strategy. Outputs: captions, search_trace."""
    todo = shard.slice(lake.read_rows(Sample, samples))
    searcher = Searcher(config, model, policy, scorer, tau, value, backbone, seed, runtime)
    captions: list[Caption] = []
    trace: list[SearchStep] = []
    with progress(f"search {config.strategy}", len(todo), unit="captions") as advance:
        for start in range(0, len(todo), runtime.batch_size):
            batch = todo[start : start + runtime.batch_size]
            pictures = load_images(images, [one.image_id for one in batch])
            found = searcher.run([pictures[one.image_id] for one in batch], batch)
            for one, result in zip(batch, found, strict=True):
                captions.append(_caption(one, policy.digest, config.strategy, result))
                trace += _trace(one, config.strategy, result, tau)
            advance(len(batch))
    check_nothing_lost("search", len(todo), len(captions), 0, 0.0, unit="samples")
    return StageOutput(
        refs={"captions": lake.publish(Caption, captions), "search_trace": lake.publish(SearchStep, trace)},
        counters=dict(searcher.counters),
    )


class Searcher:
    """A strategy with its models loaded: images and samples in, captions with traces out."""

    def __init__(
        self,
        config: SearchConfig,
        model: PolicyConfig,
        policy: ArtifactRef,
        scorer: ArtifactRef | None,
        tau: float | None,
        value: ArtifactRef | None,
        backbone: ArtifactRef | None,
        seed: int,
        runtime: RuntimeConfig,
    ) -> None:
        """Load what the strategy needs, and say what is missing."""
        from tasks.core.engine.decoder import Decoder

        strategy = config.strategy
        if strategy != "greedy" and scorer is None:
            raise StageInputError(f"search.strategy {strategy} scores sentences: it needs a scorer")
        if strategy == "visvm" and (value is None or backbone is None):
            raise StageInputError("search.strategy visvm is guided by a value model: train one, or use clip_prm")
        if strategy in ("visvm", "clip_prm") and config.stop == "reward" and tau is None:
            raise StageInputError("search.stop reward needs the rewards' margin tau: run label first, or use stop: vote")
        self.config, self.seed, self.margin = config, seed, tau if tau is not None else float("-inf")
        self.decoder: Decoder = Decoder(load_policy(model, policy, runtime))
        self.scorer: Scorer | None = load_scorer(scorer, runtime) if scorer and strategy != "greedy" else None
        self.value: ValueModel | None = None
        if strategy == "visvm" and value is not None and backbone is not None:
            self.value = load_value(model, value, backbone, runtime)
        self._work: Counter[str] = Counter()

    @property
    def counters(self) -> Counter[str]:
        """Work done so far."""
        return self.decoder.counters + self._work

    def run(self, pictures: Sequence[PIL.Image.Image], samples: Sequence[Sample]) -> list[Found]:
        """One caption a sample, in order."""
        from tasks.core.engine.proposer import Proposer, spread_temperatures
        from tasks.core.search.answers import best_of_n, greedy
        from tasks.core.search.guided import guided_search

        config, slots = self.config, range(len(samples))
        alone = config.strategy == "greedy"
        proposer = Proposer(
            self.decoder,
            pictures,
            [one.prompt for one in samples],
            [("search", self.seed, one.sample_id) for one in samples],
            temperatures=spread_temperatures(1 if alone else config.candidates, config.temperatures),
            top_p=config.top_p,
        )
        if config.strategy in ("greedy", "best_of_n"):
            answer = lambda asked: proposer.answers(asked, max_new_tokens=config.max_new_tokens)  # noqa: E731
            if alone:
                found = greedy(answer, slots=slots)
            else:
                found = best_of_n(answer, self._scores(pictures), slots=slots)
        else:
            found = guided_search(
                lambda kept: proposer.sentences(kept, max_new_tokens=config.max_sentence_tokens),
                self._scores(pictures),
                self._values(pictures) if self.value is not None else None,
                slots=slots,
                stop=config.stop,
                margin=self.margin,
                max_sentences=config.max_sentences,
            )
        return [found[slot] for slot in slots]

    def _scores(self, pictures: Sequence[PIL.Image.Image]):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """The scorer as a search's callable; each image is embedded once."""
        from tasks.core.models.scorer import cosines

        scorer = self.scorer
        assert scorer is not None  # noqa: S101  checked in __init__
        vectors = scorer.embed_images(pictures)
        self._work["images_embedded"] += len(pictures)

        def score(sentences: Sequence[tuple[int, str]]) -> list[float | None]:
            texts = list(dict.fromkeys(text for _, text in sentences))
            self._work["texts_embedded"] += len(texts)
            at = {text: i for i, text in enumerate(texts)}
            embedded = scorer.embed_texts(texts)[[at[text] for _, text in sentences]]
            return [float(value) for value in cosines(vectors, embedded, [slot for slot, _ in sentences])]

        return score

    def _values(self, pictures: Sequence[PIL.Image.Image]):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """The value model as a search's callable, all candidates in one batch."""
        import torch

        model = self.value
        assert model is not None  # noqa: S101  checked by the caller

        def value(sentences: Sequence[tuple[int, str, str]]) -> list[float]:
            texts = [
                f"{prefix} {text}".strip() if model.spec.state == "prefix" else text for _, prefix, text in sentences
            ]
            before = model.tokens
            with torch.inference_mode():
                values = model([pictures[slot] for slot, _, _ in sentences], texts).tolist()
            self._work["value_tokens"] += model.tokens - before
            return [float(one) for one in values]

        return value


def _caption(sample: Sample, policy: str, strategy: str, found: Found) -> Caption:
    return Caption(
        sample_id=sample.sample_id,
        image_id=sample.image_id,
        policy=policy,
        strategy=strategy,
        text=found.text,
        steps=len(found.sentences),
        stop_reason=found.stop_reason,
        candidates=len(found.trace),
        decode_tokens=sum(row.proposal.drawn for row in found.trace),
    )


def _trace(sample: Sample, strategy: str, found: Found, tau: float | None) -> list[SearchStep]:
    """Rows of `search_trace`; `shaped` is the margin rule in its default form."""
    rows = []
    for row in found.trace:
        shaped = None
        if row.score is not None and tau is not None:
            shaped = float(shape_scores(np.array([row.score]), shaping="margin", tau=tau, alpha=1.0)[0])
        rows.append(
            SearchStep(
                sample_id=sample.sample_id,
                strategy=strategy,
                step=row.step,
                candidate=row.candidate,
                temperature=row.proposal.temperature,
                text=row.proposal.text,
                score=row.score,
                shaped=shaped,
                value=row.value,
                chosen=row.chosen,
                ended=row.proposal.ended,
                stop=row.stop,
            )
        )
    return rows
