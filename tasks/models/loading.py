"""From references to objects: models (kept loaded in this process) and decoded images. No stage, no science."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.images import decode
from storage.schema import Image, Sample
from tasks.models.handles import PolicyHandle, ValueHandle
from tasks.stage.runtime import current_runtime

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.models.policy import Policy
    from tasks.core.models.value import StateValue, ValueModel


def current_device() -> str:
    """The runtime's device; also lets torch use as many threads as the profile sets."""
    import torch

    runtime = current_runtime()
    if runtime.threads and torch.get_num_threads() != runtime.threads:
        torch.set_num_threads(runtime.threads)
    if runtime.device != "auto":
        return runtime.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_policy(policy: PolicyHandle) -> Policy:
    """The policy, loaded once a process. Don't train it: `fresh_policy` is for that."""
    return _cached_policy(policy, current_device())


def fresh_policy(policy: PolicyHandle) -> Policy:
    """The policy, loaded anew: the caller may change it."""
    return _cached_policy.__wrapped__(policy, current_device())


@lru_cache(maxsize=1)
def _cached_policy(policy: PolicyHandle, device: str) -> Policy:
    from tasks.core.models.policy import load_policy as load

    return load(
        checkpoints.folder(policy.checkpoint),
        digest=policy.checkpoint.digest,
        dtype=policy.dtype,
        device=device,
        trust_remote_code=policy.trust_remote_code,
        settings=policy.settings,
    )


def load_value(value: ValueHandle) -> ValueModel:
    """The value model on its backbone, loaded once a process."""
    return _cached_value(value, current_device())


@lru_cache(maxsize=1)
def _cached_value(value: ValueHandle, device: str) -> ValueModel:
    from tasks.core.models.value import load_value as load

    return load(
        checkpoints.folder(value.checkpoint),
        checkpoints.folder(value.value_backbone.checkpoint),
        dtype=value.value_backbone.dtype,
        device=device,
        trust_remote_code=value.value_backbone.trust_remote_code,
        settings=value.value_backbone.settings,
    )


def load_state_value(value: ValueHandle) -> StateValue:
    """The value model that is a head on the policy's own hidden states."""
    from tasks.core.models.value import load_state_value as load

    return load(checkpoints.folder(value.checkpoint), current_device())


def layer_read(value: ValueHandle) -> int | None:
    """The layer of the policy's hidden states that a value model reads; None: it reads image and text itself."""
    from tasks.core.models.value import read_spec

    spec = read_spec(checkpoints.folder(value.checkpoint))
    return spec.layer if spec.reads == "policy_states" else None


class Pictures:
    """Decoded images of samples that are requested in their order, read from the store some at a time."""

    def __init__(self, images: Table[Image], samples: Sequence[Sample]) -> None:
        """As many samples' images are read at once as the runtime has in flight."""
        self.images, self.samples, self.ahead = images, samples, current_runtime().batch_size
        self._read: dict[str, PIL.Image.Image] = {}
        self._next = 0

    def __call__(self, sample: Sample) -> PIL.Image.Image:
        """The sample's image."""
        while sample.image_id not in self._read:
            part = self.samples[self._next : self._next + self.ahead]
            if not part:
                raise KeyError(f"image {sample.image_id} was requested out of order")
            self._next += self.ahead
            self._read = load_images(self.images, [sample.image_id for sample in part])
        return self._read[sample.image_id]


def load_images(images: Table[Image], image_ids: Sequence[str]) -> dict[str, PIL.Image.Image]:
    """Decoded RGB images by id, each read once.

    Raises:
        KeyError: an id that the table does not hold.
    """
    rows = {row.image_id: row for row in lake.read_rows(Image, images, keys=set(image_ids))}
    missing = set(image_ids) - rows.keys()
    if missing:
        raise KeyError(f"{images} lacks {len(missing)} of {len(set(image_ids))} images: {sorted(missing)[:5]} ...")
    return {image_id: decode(row.image) for image_id, row in rows.items()}
