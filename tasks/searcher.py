"""A search strategy with its models loaded: what the search stage and the caption command share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from storage.artifacts import ArtifactRef
from storage.schema import Sample
from tasks.configs import PolicyConfig, RuntimeConfig, SearchConfig
from tasks.loading import load_policy, load_scorer, load_value
from tasks.quarantine import StageInputError

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.engine.decoder import Decoder
    from tasks.core.models.scorer import Scorer
    from tasks.core.models.value import ValueModel
    from tasks.core.search.contract import Answer, Found


class Guides(NamedTuple):
    """What may guide a search: the scorer with the rewards' margin, and a value model on its backbone."""

    scorer: ArtifactRef | None = None
    tau: float | None = None
    value: ArtifactRef | None = None
    backbone: ArtifactRef | None = None


class Searcher:
    """A strategy with its models loaded: images and samples in, captions with traces out."""

    def __init__(
        self,
        config: SearchConfig,
        model: PolicyConfig,
        policy: ArtifactRef,
        guides: Guides,
        *,
        seed: int,
        runtime: RuntimeConfig,
    ) -> None:
        """Load what the strategy needs, and say what is missing."""
        from tasks.core.engine.decoder import Decoder

        strategy, (scorer, tau, value, backbone) = config.strategy, guides
        if strategy != "greedy" and scorer is None:
            raise StageInputError(f"search.strategy {strategy} scores sentences: it needs a scorer")
        if strategy == "visvm" and (value is None or backbone is None):
            raise StageInputError("search.strategy visvm is guided by a value model: train one, or use clip_prm")
        if strategy in ("visvm", "clip_prm") and config.stop == "reward" and tau is None:
            raise StageInputError(
                "search.stop reward needs the rewards' margin tau: run label first, or use stop: vote"
            )
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
            answer: Answer = partial(proposer.answers, max_new_tokens=config.max_new_tokens)
            found = greedy(answer, slots=slots) if alone else best_of_n(answer, self._scores(pictures), slots=slots)
        else:
            found = guided_search(
                partial(proposer.sentences, max_new_tokens=config.max_sentence_tokens),
                self._scores(pictures),
                self._values(pictures) if self.value is not None else None,
                slots=slots,
                stop=config.stop,
                margin=self.margin,
                max_sentences=config.max_sentences,
            )
        return [found[slot] for slot in slots]

    def _scores(self, pictures: Sequence[PIL.Image.Image]) -> Callable[[Sequence[tuple[int, str]]], list[float | None]]:
        """The scorer as a search's callable; each image is embedded once."""
        from tasks.core.models.scorer import cosines

        scorer = self.scorer
        assert scorer is not None
        vectors = scorer.embed_images(pictures)
        self._work["images_embedded"] += len(pictures)

        def score(sentences: Sequence[tuple[int, str]]) -> list[float | None]:
            texts = list(dict.fromkeys(text for _, text in sentences))
            self._work["texts_embedded"] += len(texts)
            at = {text: i for i, text in enumerate(texts)}
            embedded = scorer.embed_texts(texts)[[at[text] for _, text in sentences]]
            return [float(value) for value in cosines(vectors, embedded, [slot for slot, _ in sentences])]

        return score

    def _values(self, pictures: Sequence[PIL.Image.Image]) -> Callable[[Sequence[tuple[int, str, str]]], list[float]]:
        """The value model as a search's callable, all candidates in one batch."""
        import torch

        model = self.value
        assert model is not None

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
