"""Models as they pass between stages: checkpoints with what it takes to load them, and what guides a search."""

from __future__ import annotations

from dataclasses import dataclass

from storage.artifacts import PolicyCheckpoint, ScorerCheckpoint, Table, ValueCheckpoint
from storage.schema import Value
from tasks.configs.policy import PolicyConfig
from tasks.core.models.policy_settings import DEFAULTS, PolicySettings


@dataclass(frozen=True)
class PolicyHandle:
    """A policy's checkpoint and how it is loaded."""

    checkpoint: PolicyCheckpoint
    dtype: str = "float32"
    trust_remote_code: bool = False
    settings: PolicySettings = DEFAULTS

    @classmethod
    def of(cls, checkpoint: PolicyCheckpoint, config: PolicyConfig) -> PolicyHandle:
        """A checkpoint loaded as a profile says."""
        return cls(checkpoint, config.dtype, config.trust_remote_code, config.settings)


@dataclass(frozen=True)
class ValueHandle:
    """A value model and the policy that it stands on."""

    checkpoint: ValueCheckpoint
    value_backbone: PolicyHandle


@dataclass(frozen=True)
class Guide:
    """What guides a search. None: the strategy does without, so it is no part of the search's key."""

    scorer: ScorerCheckpoint | None = None
    margin: float | None = None  # the rewards' threshold, tau in the papers
    value: ValueHandle | None = None
    held_out: Table[Value] | None = None  # the value model's estimates of held-out sentences
    answer_scores: tuple[float, float] | None = None  # mean and deviation of the rollouts' mean scores
    end_value: float | None = None  # what ending is worth on the value model's scale
    objects: ScorerCheckpoint | None = None  # what was detected in the images, for completeness


UNGUIDED = Guide()
