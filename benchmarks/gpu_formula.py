"""The computed peak of each stage of `benchmarks.gpu`, by the formulas of docs/memory.md with that stage's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tasks.core.memory.facts import ImageCost, Phase, StagePeak
from tasks.core.memory.forward import PROMPT_TOKENS, Decoding, Reading, decoding_phases, reading_phases
from tasks.core.memory.images import UnknownImageCost
from tasks.core.memory.training import Training, training_phases, truncated
from tasks.models.architectures import Facts, facts_of_config

if TYPE_CHECKING:
    from benchmarks.gpu_stages import Scale
    from tasks.core.models.policy import Policy

RANK = 16  # of the adapters


class Computed:
    """Peaks of one model at one scale; made before anything is trained, which changes its modules."""

    def __init__(self, policy: Policy, scale: Scale, images: tuple[int, int]) -> None:
        """`images`: width and height of the photographs."""
        processor = policy.processor.image_processor
        self.facts: Facts = facts_of_config(
            "benchmark", "benchmarks.gpu", policy.model.config.to_dict(), processor.to_dict()
        )
        self.scale, self.width = scale, policy.model.dtype.itemsize
        self.training_width = self.width if policy.device.type == "cuda" else 4
        self.checkpointed = policy.device.type == "cuda"
        try:
            self.cost: ImageCost | None = self.facts.cost(images, None)
        except UnknownImageCost:
            self.cost = None
        self.held = {"policy weights": float(self.facts.arch.parameters.total * self.width)}

    def peak(self, stage: str) -> float | None:
        """Bytes; None: there is no formula for the stage, or for what an image costs this model."""
        phases = _STAGES.get(stage)
        if self.cost is None or phases is None:
            return None
        return StagePeak(stage, tuple(phases(self, self.cost))).peak.bytes

    def rollout(self, cost: ImageCost) -> list[Phase]:
        """Whole answers."""
        scale = self.scale
        drawn = Decoding(scale.in_flight, len(scale.temperatures), 0, scale.max_new_tokens)
        return decoding_phases(self.facts.arch, cost, self.held, drawn, self.width)

    def search(self, cost: ImageCost) -> list[Phase]:
        """Sentences behind the longest caption."""
        scale, rows = self.scale, len(self.scale.temperatures)
        before = scale.max_sentences * scale.max_sentence_tokens
        drawn = Decoding(scale.in_flight, rows, before, scale.max_sentence_tokens, rows * scale.max_sentence_tokens)
        return decoding_phases(self.facts.arch, cost, self.held, drawn, self.width)

    def search_by_network(self, cost: ImageCost) -> list[Phase]:
        """The same, beside a second network with the images it has read."""
        cache = self.facts.arch.language.kv_bytes(self.width) * self.scale.in_flight * cost.tokens
        beside = {"value network": self.held["policy weights"], "the network's prefixes": cache}
        return [Phase(phase.name, {**phase.terms, **beside}) for phase in self.search(cost)]

    def states(self, cost: ImageCost) -> list[Phase]:
        """Answers that are read again."""
        tokens = cost.tokens + PROMPT_TOKENS + self.scale.max_new_tokens
        rows = min(self.scale.batch, self.scale.answers_read)  # an image's answers at a time
        return reading_phases(self.facts.arch, cost, self.held, Reading(rows, tokens, cached=False), self.width)

    def value(self, cost: ImageCost) -> list[Phase]:
        """A network with adapters, beside the policy."""
        return self._trained(cost, self.scale.batch, self.scale.max_sentence_tokens, policy=False)

    def sft(self, cost: ImageCost) -> list[Phase]:
        """Answers with adapters."""
        return self._trained(cost, self.scale.batch, self.scale.max_new_tokens, policy=True)

    def dpo(self, cost: ImageCost) -> list[Phase]:
        """Two answers a pair."""
        return self._trained(cost, 2 * max(1, self.scale.batch // 2), self.scale.max_new_tokens, policy=True)

    def _trained(self, cost: ImageCost, rows: int, answer: int, *, policy: bool) -> list[Phase]:
        arch = self.facts.arch if policy else truncated(self.facts.arch, -1)
        training = Training(
            "lora", RANK, rows, answer, self.training_width,
            logits=policy, target=not policy, checkpointed=self.checkpointed, foreach=not policy,
        )  # fmt: skip
        return training_phases(arch, cost, {} if policy else dict(self.held), training)


_STAGES: dict[str, Callable[[Computed, ImageCost], list[Phase]]] = {
    "rollout": Computed.rollout,
    "value by states": Computed.states,
    "search, V by states": Computed.search,
    "value, LoRA": Computed.value,
    "search, V a network": Computed.search_by_network,
    "sft, LoRA": Computed.sft,
    "dpo, LoRA": Computed.dpo,
}
