"""The computed memory in the headers of the shipped profiles.

python -m benchmarks.memory_headers          rewrites them; a test compares them with what is computed
"""

from __future__ import annotations

import re
from pathlib import Path

from flows.cli.plan import gigabytes
from flows.profiles.loading import PROFILES, load_profile
from flows.profiles.memory import as_options, device_bytes, fits, peaks_of, smallest_changes

BLOCK = re.compile(r"(?<=# memory:begin\n).*?(?=# memory:end\n)", re.DOTALL)
DEVICES = ("80GB", "24GB")
WIDTH = 118
AWAY = (
    "data.train.root=/nowhere",
    "data.benchmark.root=/nowhere",
)  # counts COCO's largest images, whatever lies in data/coco


def header(name: str) -> str:
    """The lines of a profile's header: each stage's peak, and what to change for a device that it doesn't fit."""
    profile = load_profile(name, AWAY)
    peaks = peaks_of(profile)
    stages = ", ".join(f"{peak.stage.replace('_', '-')} {gigabytes(peak.bytes)}" for peak in peaks)
    lines = [f"Peak of the device's memory, computed, not measured (docs/memory.md): {stages}"]
    for device in DEVICES:
        memory = device_bytes(device)
        if fits(peaks, memory):
            lines.append(f"{device}: fits")
        else:
            changes = smallest_changes(profile, memory)
            lines.append(f"{device}: fits with {as_options(changes)}" if changes else f"{device}: fits with no setting")
    return "".join(f"#   {part}\n" for line in lines for part in _wrapped(line))


def _wrapped(line: str) -> list[str]:
    """At spaces, an option with its value in one piece."""
    parts = [""]
    for word in line.replace("--set ", "--set\0").split(" "):
        if len(parts[-1]) + len(word) + 1 > WIDTH:
            parts.append(f"  {word}")
        else:
            parts[-1] = f"{parts[-1]} {word}".lstrip() if len(parts) == 1 else f"{parts[-1]} {word}"
    return [part.replace("\0", " ") for part in parts]


def with_header(path: Path) -> str:
    """A profile's text with its header as it is computed now; as it is where it has none."""
    text = path.read_text(encoding="utf-8")
    return BLOCK.sub(lambda _: header(path.stem), text) if BLOCK.search(text) else text


def main() -> None:
    """Rewrite all headers."""
    for path in sorted(PROFILES.glob("*.yaml")):
        path.write_text(with_header(path), encoding="utf-8")


if __name__ == "__main__":
    main()
