"""Names that open_clip has for its own models, read from its files: importing it takes seconds."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_EXAMPLE = "ViT-L-14-336-quickgelu/openai"


def check_open_clip_name(checkpoint: str) -> None:
    """Check that `NAME/PRETRAINED` begins with a model of open_clip's; which weights there are, open_clip knows when it loads.

    Raises:
        ValueError: another form, or a model that open_clip doesn't have, such as a hub id without its prefix.
    """
    name, slash, pretrained = checkpoint.partition("/")
    if not (name and slash and pretrained) or "/" in pretrained:
        raise ValueError(
            f"scorer.checkpoint {checkpoint!r}: no such folder, and neither hf-hub:ORG/NAME nor NAME/PRETRAINED "
            f"(for example {_EXAMPLE}) nor plugin:NAME"
        )
    if name not in _names():
        raise ValueError(
            f"scorer.checkpoint {checkpoint!r}: no such folder, and open_clip has no model {name!r}; a repository of the hub "
            f"is hf-hub:{checkpoint}, a model of open_clip's own NAME/PRETRAINED (for example {_EXAMPLE})"
        )


@cache
def _names() -> frozenset[str]:
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations or () if spec else ()
    return frozenset(file.stem for folder in folders for file in Path(folder, "model_configs").glob("*.json"))
