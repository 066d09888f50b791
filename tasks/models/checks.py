"""Whether models load, in a line each, for `visloop doctor`; through the same code that a run loads them by."""

from __future__ import annotations

from storage.artifacts import PolicyCheckpoint
from storage.checkpoints import import_checkpoint
from tasks.configs.policy import PolicyConfig
from tasks.core.models.checkpoint_checks import check_folder, check_weights
from tasks.core.models.weight_files import CheckpointError
from tasks.models.handles import PolicyHandle

__all__ = ["CheckpointError", "import_policy", "policy_state", "scorer_state", "torchvision_state"]


def import_policy(checkpoint: str, config: PolicyConfig) -> PolicyHandle:
    """A policy by its folder or hub id, refused before any work where its files tell that it can't be used.

    Raises:
        CheckpointError: in a line, why.
        CheckpointNotFound: as `import_checkpoint`.
    """
    check_folder(checkpoint)
    check_weights(checkpoint)
    return PolicyHandle.of(import_checkpoint(PolicyCheckpoint, checkpoint), config)


def torchvision_state() -> str:
    """How torch and torchvision get along; raises if open_clip cannot be imported at all."""
    from tasks.core.models.torchvision_operators import ensure_torchvision_operators

    declared = ensure_torchvision_operators()
    import open_clip
    import torch

    how = "torchvision's compiled operators do not fit and were declared" if declared else "torchvision loads"
    return f"{how}; torch {torch.__version__}, open_clip {open_clip.__version__}"


def policy_state(folder: str, config: PolicyConfig) -> str:
    """Load a policy; its kind and size."""
    from tasks.core.models.policy import load_policy

    model = load_policy(folder, digest="", dtype=config.dtype, settings=config.settings).model
    return f"{folder}: {type(model).__name__}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"


def scorer_state(folder: str, dtype: str) -> str:
    """Load a scorer; its size and context."""
    from tasks.core.models.scorer import load_scorer

    scorer = load_scorer(folder, digest="", dtype=dtype)
    size = sum(p.numel() for p in scorer.model.parameters()) / 1e6
    return f"{folder}: {type(scorer.model).__name__}, {size:.1f} M parameters, {scorer.context_length} tokens of text"
