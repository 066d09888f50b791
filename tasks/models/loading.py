"""From references to objects: models (kept loaded in this process) and decoded images. No stage, no science."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from storage import checkpoints, lake
from storage.artifacts import ArtifactRef
from storage.images import decode
from storage.schema import Image, Sample
from tasks.configs.policy import PolicyConfig
from tasks.stage.runtime import RuntimeConfig

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.models.policy import Policy
    from tasks.core.models.value import StateValue, ValueModel


def device_of(runtime: RuntimeConfig) -> str:
    """The device to use; also lets torch use as many threads as the profile says."""
    import torch

    if runtime.threads and torch.get_num_threads() != runtime.threads:
        torch.set_num_threads(runtime.threads)
    if runtime.device != "auto":
        return runtime.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_policy(model: PolicyConfig, policy: ArtifactRef, runtime: RuntimeConfig) -> Policy:
    """The policy, loaded once a process. Don't train it: `fresh_policy` is for that."""
    return _kept_policy(policy, model.dtype, device_of(runtime), model.trust_remote_code)


def fresh_policy(model: PolicyConfig, policy: ArtifactRef, runtime: RuntimeConfig) -> Policy:
    """The policy, loaded anew: the caller may change it."""
    return _kept_policy.__wrapped__(policy, model.dtype, device_of(runtime), model.trust_remote_code)


@lru_cache(maxsize=1)
def _kept_policy(policy: ArtifactRef, dtype: str, device: str, trust_remote_code: bool) -> Policy:
    from tasks.core.models.policy import load_policy as load

    return load(
        checkpoints.folder(policy),
        digest=policy.digest,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )


def load_value(model: PolicyConfig, value: ArtifactRef, backbone: ArtifactRef, runtime: RuntimeConfig) -> ValueModel:
    """The value model on its backbone, loaded once a process."""
    return _kept_value(value, backbone, model.dtype, device_of(runtime), model.trust_remote_code)


@lru_cache(maxsize=1)
def _kept_value(
    value: ArtifactRef, backbone: ArtifactRef, dtype: str, device: str, trust_remote_code: bool
) -> ValueModel:
    from tasks.core.models.value import load_value as load

    return load(
        checkpoints.folder(value),
        checkpoints.folder(backbone),
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )


def load_state_value(value: ArtifactRef, runtime: RuntimeConfig) -> StateValue:
    """The value model that is a head on the policy's own hidden states."""
    from tasks.core.models.value import load_state_value as load

    return load(checkpoints.folder(value), device_of(runtime))


class Pictures:
    """Decoded images of samples that are asked for in their order, read from the store some at a time."""

    def __init__(self, images: ArtifactRef, samples: Sequence[Sample], ahead: int) -> None:
        """`ahead`: how many samples' images are read at once."""
        self.images, self.samples, self.ahead = images, samples, max(1, ahead)
        self._read: dict[str, PIL.Image.Image] = {}
        self._next = 0

    def __call__(self, sample: Sample) -> PIL.Image.Image:
        """The sample's image."""
        while sample.image_id not in self._read:
            part = self.samples[self._next : self._next + self.ahead]
            if not part:
                raise KeyError(f"image {sample.image_id} was asked for out of order")
            self._next += self.ahead
            self._read = load_images(self.images, [one.image_id for one in part])
        return self._read[sample.image_id]


def load_images(images: ArtifactRef, image_ids: Sequence[str]) -> dict[str, PIL.Image.Image]:
    """Decoded RGB images by id, each read once.

    Raises:
        KeyError: an id that the table does not hold.
    """
    rows = {row.image_id: row for row in lake.read_rows(Image, images, keys=set(image_ids))}
    missing = set(image_ids) - rows.keys()
    if missing:
        raise KeyError(f"{images} lacks {len(missing)} of {len(set(image_ids))} images: {sorted(missing)[:5]} ...")
    return {image_id: decode(row.image) for image_id, row in rows.items()}
