"""References to artifacts: the only thing that passes between stages, never a table and never a model.

A reference says what an artifact is and what its bytes are, not where they lie: the store can be moved. Equal content
has an equal reference: a stage does not run again if its input was recomputed with the same result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from storage import manifests, objects
from storage.objects import ArtifactDamaged, ArtifactError, ArtifactMissing, home
from storage.schema import ROW_TYPES

__all__ = ["ArtifactDamaged", "ArtifactError", "ArtifactMissing", "ArtifactRef", "StageOutput", "home"]

FOLDER_KINDS = ("policy", "scorer", "value")


def canonical_json(value: Any) -> str:
    """The canonical JSON text of a value: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class ArtifactRef(BaseModel):
    """Names an immutable artifact: a table (`kind` is its name) or a checkpoint folder (policy, scorer, value)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    digest: str
    rows: int | None = None
    schema_version: int = 1
    size: int = 0

    @property
    def is_table(self) -> bool:
        """Whether it is a table and not a folder."""
        return self.kind in ROW_TYPES

    @property
    def path(self) -> Path:
        """The Parquet file, or the checkpoint's folder; computed, so the store can be moved."""
        if self.is_table:
            return objects.object_path(self.digest, ".parquet")
        return manifests.locate(self.digest)

    def verify(self, *, full: bool = False) -> None:
        """Make sure that the artifact is there and whole; `full` hashes every byte again.

        Raises:
            ArtifactMissing: it, or a file of it, is gone.
            ArtifactDamaged: its content does not match its digest.
        """
        if self.is_table:
            objects.check_file(self.path, self.digest, self.size, full=full)
        else:
            manifests.check_folder(self.digest, full=full)

    def __str__(self) -> str:
        """Kind and the digest's beginning."""
        return f"{self.kind} {self.digest[:12]}"


class StageOutput(BaseModel):
    """What a stage returns.

    `refs` are its artifacts by name, `facts` small deterministic results that later stages depend on, `counters` the
    work it counted. Two outputs are the same if refs and facts are; counters are not part of the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refs: dict[str, ArtifactRef] = {}
    facts: dict[str, JsonValue] = {}
    counters: dict[str, float] = {}

    def __getitem__(self, name: str) -> ArtifactRef:
        """The artifact of that name.

        Raises:
            KeyError: there is none; says which there are.
        """
        if name not in self.refs:
            raise KeyError(f"no output {name!r}; this stage has {sorted(self.refs)}")
        return self.refs[name]

    @property
    def digest(self) -> str:
        """Identity of refs and facts."""
        refs = {name: [ref.kind, ref.digest] for name, ref in self.refs.items()}
        return hashlib.sha256(canonical_json([refs, self.facts]).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Rows of all its tables together."""
        return sum(ref.rows or 0 for ref in self.refs.values())
