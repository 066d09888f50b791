"""From references to objects: models (kept loaded in this process) and decoded images. No stage, no science."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Generic, TypeVar

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.images import decode
from storage.lookup import Lookup
from storage.schema import Image, Sample
from tasks.models.handles import PolicyHandle, ValueHandle
from tasks.stage.runtime import current_runtime

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.models.image_check import ImageCheck
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


Model = TypeVar("Model")


class _Loaded(Generic[Model]):
    """The last model that was loaded. It goes before the next one comes: a device seldom has room for both."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._model: Model | None = None

    def get(self, key: Hashable, load: Callable[[], Model]) -> Model:
        """The model of this key."""
        if self._model is None or self._key != key:
            self.release()
            self._key, self._model = key, load()
        return self._model

    def release(self) -> None:
        """Forget it."""
        if self._model is not None:
            self._key = self._model = None
            gc.collect()  # modules refer to each other


def load_policy(policy: PolicyHandle) -> Policy:
    """The policy, loaded once a process. Don't train it: `fresh_policy` is for that."""
    device = current_device()
    return _POLICY.get((policy, device), lambda: _read_policy(policy, device))


def fresh_policy(policy: PolicyHandle) -> Policy:
    """The policy, loaded anew: the caller may change it. What other stages have loaded makes room for it."""
    _POLICY.release()
    _VALUE.release()
    return _read_policy(policy, current_device())


def _read_policy(policy: PolicyHandle, device: str) -> Policy:
    from tasks.core.models.policy import load_policy as load

    return load(
        checkpoints.folder(policy.checkpoint),
        digest=policy.checkpoint.digest,
        dtype=policy.dtype,
        device=device,
        trust_remote_code=policy.trust_remote_code,
        settings=policy.settings,
    )


def image_refusal(policy: PolicyHandle | None) -> Callable[[int, int], str | None]:
    """Why the policy's processor refuses an image of a width and height (pixels); None: it takes it, or there is no policy.

    The processor is loaded for the first image.
    """
    if policy is None:
        return lambda width, height: None
    return lambda width, height: _image_check(policy).problem(width, height)


@lru_cache(maxsize=1)
def _image_check(policy: PolicyHandle) -> ImageCheck:
    from tasks.core.models.image_check import ImageCheck

    return ImageCheck.of(checkpoints.folder(policy.checkpoint), trust_remote_code=policy.trust_remote_code)


def load_value(value: ValueHandle) -> ValueModel:
    """The value model on its backbone, loaded once a process."""
    device = current_device()
    return _VALUE.get((value, device), lambda: _read_value(value, device))


def _read_value(value: ValueHandle, device: str) -> ValueModel:
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


_POLICY: _Loaded[Policy] = _Loaded()
_VALUE: _Loaded[ValueModel] = _Loaded()


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


class StoredImages(Mapping[str, "PIL.Image.Image"]):
    """Images of a table by id, each decoded from the bytes in the store whenever it is requested; none is kept."""

    def __init__(self, images: Table[Image], image_ids: Collection[str]) -> None:
        """Raises KeyError for an id that the table does not hold."""
        self._rows = Lookup(Image, images, image_ids)

    def __getitem__(self, image_id: str) -> PIL.Image.Image:
        return decode(self._rows[image_id].image)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def picture(self, image_id: str) -> Callable[[], PIL.Image.Image]:
        """What decodes the image when it is needed."""
        return partial(self.__getitem__, image_id)


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
