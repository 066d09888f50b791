"""References to artifacts: the only thing that passes between stages, never a table and never a model.

A reference says what an artifact is and what its bytes are, not where they lie: the store can be moved. Equal content
has an equal reference: a stage does not run again if its input was recomputed with the same result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, field_validator

from storage import manifests, objects
from storage.objects import ArtifactDamaged, ArtifactError, ArtifactMissing, home
from storage.schema import ROW_TYPES, Row

__all__ = [
    "ArtifactDamaged",
    "ArtifactError",
    "ArtifactMissing",
    "ArtifactRef",
    "Checkpoint",
    "PolicyCheckpoint",
    "ScorerCheckpoint",
    "StageOutput",
    "Table",
    "ValueCheckpoint",
    "home",
]

R = TypeVar("R", bound=Row)


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


class Table(ArtifactRef, Generic[R]):
    """A table whose rows are of one type: `Table[Reward]`. What a stage takes and returns; a type checker follows it."""


class Checkpoint(ArtifactRef):
    """A model's folder."""

    @classmethod
    def of(cls, digest: str, size: int = 0) -> Self:
        """The checkpoint of this digest."""
        return cls(kind=KIND_OF[cls], digest=digest, size=size)


class PolicyCheckpoint(Checkpoint):
    """A vision-language model with its processor."""


class ScorerCheckpoint(Checkpoint):
    """What gives sentences scores: an image-text model, or the description of another reward."""


class ValueCheckpoint(Checkpoint):
    """A value model's head and adapters; its backbone is a policy's checkpoint."""


KIND_OF: dict[type[Checkpoint], str] = {
    PolicyCheckpoint: "policy",
    ScorerCheckpoint: "scorer",
    ValueCheckpoint: "value",
}
_CHECKPOINTS = {kind: checkpoint for checkpoint, kind in KIND_OF.items()}


def reference(fields: Any) -> ArtifactRef:
    """A reference, from what `model_dump` gave or from another reference, of the class that its kind has."""
    ref = fields if isinstance(fields, ArtifactRef) else ArtifactRef.model_validate(fields)
    of_kind: type[ArtifactRef] = Table if ref.is_table else _CHECKPOINTS.get(ref.kind, ArtifactRef)
    return ref if type(ref) is of_kind else of_kind(**ref.model_dump())


class StageOutput(BaseModel):
    """What is kept of a stage's result.

    `refs` are its artifacts by name, `facts` small deterministic results that later stages depend on, `counters` the
    work it counted. Two outputs are the same if refs and facts are; counters are not part of the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refs: dict[str, ArtifactRef] = {}
    facts: dict[str, JsonValue] = {}
    counters: dict[str, float] = {}

    @field_validator("refs")
    @classmethod
    def _of_their_kinds(cls, refs: dict[str, ArtifactRef]) -> dict[str, ArtifactRef]:
        return {name: reference(ref) for name, ref in refs.items()}

    @property
    def digest(self) -> str:
        """Identity of refs and facts."""
        refs = {name: [ref.kind, ref.digest] for name, ref in self.refs.items()}
        return hashlib.sha256(canonical_json([refs, self.facts]).encode()).hexdigest()

    def table(self, row_type: type[R], name: str) -> Table[R]:
        """The table of that name.

        Raises:
            KeyError: there is none of this row type.
        """
        ref = self.refs.get(name)
        if not isinstance(ref, Table) or ref.kind != row_type.table:
            raise KeyError(f"no table {name!r} of {row_type.table}; kept are {sorted(self.refs)}")
        return ref

    @property
    def rows(self) -> int:
        """Rows of all its tables together."""
        return sum(ref.rows or 0 for ref in self.refs.values())
