"""Whether models load, in a line each, for `visloop doctor`; through the same code that a run loads them by."""

from __future__ import annotations


def torchvision_state() -> str:
    """How torch and torchvision get along; raises if open_clip cannot be imported at all."""
    from tasks.core.models.torchvision_operators import ensure_torchvision_operators

    declared = ensure_torchvision_operators()
    import open_clip
    import torch

    how = "torchvision's compiled operators do not fit and were declared" if declared else "torchvision loads"
    return f"{how}; torch {torch.__version__}, open_clip {open_clip.__version__}"


def policy_state(folder: str, dtype: str) -> str:
    """Load a policy; its kind and size."""
    from tasks.core.models.policy import load_policy

    model = load_policy(folder, digest="", dtype=dtype).model
    return f"{folder}: {type(model).__name__}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"


def scorer_state(folder: str, dtype: str) -> str:
    """Load a scorer; its size and context."""
    from tasks.core.models.scorer import load_scorer

    scorer = load_scorer(folder, digest="", dtype=dtype)
    size = sum(p.numel() for p in scorer.model.parameters()) / 1e6
    return f"{folder}: {type(scorer.model).__name__}, {size:.1f} M parameters, {scorer.context_length} tokens of text"
