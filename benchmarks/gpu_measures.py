"""What the GPU benchmark measures with: seconds, peak memory, the device's bandwidth, and decoding's share of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
FORMULA = (
    "a step's least traffic = bytes of the language model's weights and head, each read once, + rows x columns of the cache x "
    "bytes of a token's keys and values; its share of the limit = that over the step's time, over the bandwidth of a copy"
)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


class Clock:
    """Adds up the seconds of what is done within `running`."""

    def __init__(self, device: str) -> None:
        """`device`: whose work counts."""
        self.device, self.seconds = device, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it the seconds count."""
        wait(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            wait(self.device)
            self.seconds += time.perf_counter() - start


class Memory:
    """Peak memory: `max_memory_allocated` on a GPU; elsewhere the process's resident memory above where it was at first."""

    def __init__(self, device: str) -> None:
        """Take the baseline; models must not be loaded yet."""
        self.device = device
        self.baseline = _status("VmRSS")

    def restart(self) -> None:
        """Forget the peak so far."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):  # then it is the peak since the start, which is no less
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM

    def peak(self) -> float:
        """Bytes at most since `restart`."""
        if self.device.startswith("cuda"):
            return float(torch.cuda.max_memory_allocated(self.device))
        return max(0.0, _status("VmHWM") - self.baseline)


def _status(name: str) -> float:
    """A field of this process's status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024.0 * float(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0.0)


def device_name(device: str) -> str:
    """The device as its maker calls it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU ({names[0] if names else 'unknown'}), {torch.get_num_threads()} threads"


def copy_bandwidth(device: str, repeats: int = 10) -> float:
    """Bytes a second that a copy reads and writes, the median of some."""
    source = torch.ones((GIB if device.startswith("cuda") else GIB // 16) // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = []
    for _ in range(repeats):
        clock = Clock(device)
        with clock.running():
            target.copy_(source)
        seconds.append(clock.seconds)
    return 2 * 4 * source.numel() / statistics.median(seconds)


@dataclass
class DecodeMeter:
    """Times decoding steps and counts what they must read; only steps with nothing between them and the next count."""

    model: Any
    device: str
    steps: list[tuple[float, float]] = field(default_factory=list)  # (seconds, bytes)
    _last: tuple[float, float] | None = None  # when the last step began, its bytes
    _inside: bool = False

    def __post_init__(self) -> None:
        """Bytes of the weights and of a token's keys and values."""
        language, text = self.model.model.language_model, self.model.config.get_text_config()
        table = {id(weight) for weight in language.get_input_embeddings().parameters()}
        weights = [*language.parameters(), *self.model.get_output_embeddings().parameters()]
        self.weight_bytes = float(sum(w.numel() * w.element_size() for w in weights if id(w) not in table))
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        width = self.model.dtype.itemsize
        self.token_bytes = 2 * text.num_hidden_layers * text.num_key_value_heads * head * width

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it the model's steps are timed."""
        handles = [
            self.model.register_forward_pre_hook(self._step, with_kwargs=True),
            self.model.model.register_forward_pre_hook(self._other, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _step(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """A step begins: the one before it is over."""
        wait(self.device)
        now = time.perf_counter()
        if self._last is not None:
            self.steps.append((now - self._last[0], self._last[1]))
        mask = kwargs["attention_mask"]
        masks = list(mask.values()) if isinstance(mask, Mapping) else [mask]
        cells = max(len(kwargs["input_ids"]) * each.shape[-1] for each in masks if each is not None)
        self._last, self._inside = (now, self.weight_bytes + cells * self.token_bytes), True

    def _other(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Something is read; if it is no decoding step, it stands between two of them."""
        if not self._inside:
            self._last = None
        self._inside = False

    def step_seconds(self) -> float:
        """The median step's."""
        return statistics.median(seconds for seconds, _ in self.steps)

    def share(self, bandwidth: float) -> float:
        """Of the bandwidth limit, the median over steps; see `FORMULA`."""
        return statistics.median(moved / seconds / bandwidth for seconds, moved in self.steps)
