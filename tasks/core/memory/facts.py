"""What memory depends on: a model's sizes, an image's tokens, and a stage's peak as the largest sum of named terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB, GB = 2**30, 10**9


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by what they belong to."""

    language: int  # layers and norms
    embedding: int
    head: int  # 0 where it is the embedding
    vision: int  # towers
    projector: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.language + self.embedding + self.head + self.vision + self.projector

    @property
    def learning(self) -> int:
        """Of full training: all but the towers."""
        return self.total - self.vision


@dataclass(frozen=True)
class Language:
    """The language model's shape."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int  # of a token: with experts, of all that read it
    vocabulary: int
    cross_layers: int = 0  # that attend to the image instead of the text
    cached_layers: int = -1  # whose keys and values grow with the text; -1: all that aren't cross-attention
    lora_width: int = 0  # sum of inputs and outputs over the linear layers that adapters cover: parameters per rank

    def kv_bytes(self, width: int) -> int:
        """Bytes of one token's keys and values in all layers, at `width` bytes a number."""
        layers = self.layers - self.cross_layers if self.cached_layers < 0 else self.cached_layers
        return 2 * layers * self.kv_heads * self.head_dim * width

    def cross_bytes(self, tokens: int, width: int) -> int:
        """Bytes of an image's keys and values in the cross-attention layers."""
        return 2 * self.cross_layers * self.kv_heads * self.head_dim * tokens * width

    def truncated(self, layer: int) -> Language:
        """The language model up to a hidden layer, counted from the end: -1 is all of it."""
        return replace(self, layers=max(1, self.layers + 1 + layer))


@dataclass(frozen=True)
class Vision:
    """The vision tower's shape; several towers count as their widest."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    keeps_layers: bool = False  # the states of all layers live until the features are picked


@dataclass(frozen=True)
class ImageCost:
    """What one image costs."""

    tokens: int  # in the language model's sequence
    patches: int  # that the vision tower reads, over all crops
    crops: int  # how many parts attend by themselves
    pixels: int  # numbers in the processor's output
    cross_tokens: int = 0  # that cross-attention layers keep keys and values of


@dataclass(frozen=True)
class Architecture:
    """A model's sizes, and where they come from."""

    name: str
    source: str  # a file, for messages
    parameters: Parameters
    language: Language
    vision: Vision


@dataclass(frozen=True)
class Phase:
    """A moment of a stage: what is in memory then, in bytes by term."""

    name: str
    terms: dict[str, float]

    @property
    def bytes(self) -> float:
        """The sum."""
        return sum(self.terms.values())


@dataclass(frozen=True)
class StagePeak:
    """A stage's peak: that of its most expensive phase."""

    stage: str
    phases: tuple[Phase, ...] = field(default_factory=tuple)

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def bytes(self) -> float:
        """What it needs."""
        return self.peak.bytes


def largest(peaks: Sequence[StagePeak]) -> StagePeak:
    """The stage that needs most."""
    return max(peaks, key=lambda peak: peak.bytes)
