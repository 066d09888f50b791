"""`visloop plan`: what would run and why, and whether it fits the device's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import FAILED, is_known
from flows.cli.output import console, print_table
from flows.cli.run import Overrides, ProfileName, Rounds, load

if TYPE_CHECKING:
    from flows.profiles.loading import Profile
    from tasks.models.memory import StagePeak

DeviceMemory = Annotated[
    str | None,
    typer.Option(
        "--device-memory",
        metavar="SIZE",
        help="Memory of the device, as 80GB or 79.6GiB; the device's own if left out and it is a GPU.",
    ),
]
LARGEST_TERMS = 3  # of a stage that does not fit


def plan(
    profile: ProfileName, overrides: Overrides = None, rounds: Rounds = None, device_memory: DeviceMemory = None
) -> None:
    """Print what would run, why, and how much memory it takes.

    Which stages are cached, which will run, and which setting or module changed since; nothing runs. Beside them the computed
    peak of the device's memory. With a size to fit, it says what to change where a stage doesn't fit; exit code 1.

    Examples:

        visloop plan demo

        visloop plan demo --set search.candidates=4

        visloop plan visvm-llava-next-7b --device-memory 24GB
    """
    from flows.profiles.memory import device_bytes

    loaded = load(profile, overrides, rounds)
    memory = device_bytes(device_memory) if device_memory else _memory_of_device(loaded.runtime.device)
    peaks, unknown = _peaks(loaded)
    try:
        _print_stages(loaded, {peak.stage: peak for peak in peaks}, memory)
    except Exception as error:
        # Memory needs neither the weights nor the images.
        if device_memory is None or not peaks or not is_known(error):
            raise
        _print_peaks(peaks, memory)
        console().print(f"stages are not listed: {error}", style="yellow", soft_wrap=True)
    if unknown:
        console().print(f"memory is not computed: {unknown}", style="yellow", soft_wrap=True)
        if device_memory:
            raise typer.Exit(FAILED)
    else:
        _judge(loaded, peaks, memory)


def _memory_of_device(device: str) -> int | None:
    """Total memory of the runtime's GPU; None without one."""
    if device not in ("auto",) and not device.startswith("cuda"):
        return None
    from tasks.models.memory import accelerator_bytes

    return accelerator_bytes(device)


def _peaks(profile: Profile) -> tuple[list[StagePeak], str]:
    """The stages' computed peaks; or none, and why."""
    from flows.profiles.memory import peaks_of
    from tasks.models.architectures import ArchitectureUnknown
    from tasks.models.memory import UnknownImageCost

    try:
        return peaks_of(profile), ""
    except (ArchitectureUnknown, UnknownImageCost) as error:
        return [], str(error)


def _print_stages(profile: Profile, peaks: Mapping[str, StagePeak], memory: int | None) -> None:
    """The table of stages, with the peak of those that load a model."""
    from flows import self_training
    from tasks.stage.plan import planning

    with planning() as planned:
        self_training.plan(profile)
    lines = []
    for entry in planned.entries:
        shards = "" if entry.shards is None else ", ".join(map(str, entry.shards))
        peak = peaks.get(_name(entry.stage, entry.label), peaks.get(entry.stage))
        cell = "" if peak is None else _cell(peak, memory)
        lines.append([entry.action, entry.stage.replace("_", "-"), entry.label, shards, cell, entry.why])
    print_table(["", "stage", "for", "shards", "memory", "why"], lines)
    counts = {action: sum(entry.action == action for entry in planned.entries) for action in ("cached", "run", "waits")}
    console().print(
        f"{counts['cached']} cached, {counts['run']} to run, {counts['waits']} waiting for one of these "
        f"(and cached, too, if its output comes out as before)",
        style="dim",
    )


def _name(stage: str, label: str) -> str:
    """The peak's name: captions that no search chooses have one of their own."""
    greedy = stage == "search" and label.endswith(("greedy", "replay", "general", "staged"))
    return "search_greedy" if greedy else stage


def _print_peaks(peaks: list[StagePeak], memory: int | None) -> None:
    """The peaks alone, with their moment and their largest terms."""
    rows = [[peak.stage.replace("_", "-"), _cell(peak, memory), peak.peak.name, _terms(peak)] for peak in peaks]
    print_table(["stage", "memory", "when", "most of it"], rows, cut=200)


def _cell(peak: StagePeak, memory: int | None) -> str:
    verdict = "" if memory is None or peak.bytes <= memory else " does not fit"
    return f"{gigabytes(peak.bytes)}{verdict}"


def _terms(peak: StagePeak) -> str:
    terms = sorted(peak.peak.terms.items(), key=lambda term: -term[1])[:LARGEST_TERMS]
    return ", ".join(f"{name} {gigabytes(count)}" for name, count in terms)


def gigabytes(count: float) -> str:
    """Bytes for people: 10^9 are one GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def _judge(profile: Profile, peaks: list[StagePeak], memory: int | None) -> None:
    """Say whether everything fits; where it doesn't, what to change. Ends the command with an error then."""
    from flows.profiles.memory import as_options, fits, image_size, smallest_changes

    size = image_size(profile)
    console().print(
        f"memory: computed, for images of {size.width}x{size.height} ({size.why}) and answers at their limits; docs/memory.md",
        style="dim",
        soft_wrap=True,
    )
    if memory is None:
        return
    if fits(peaks, memory):
        console().print(f"fits {gigabytes(memory)}", style="green")
        return
    out = typer.style("error:", fg="red", bold=True)
    for peak in peaks:
        if peak.bytes > memory:
            changes = smallest_changes(profile, memory, peak.stage)
            advice = f"change: {as_options(changes)}" if changes else "no setting makes it fit: use a smaller model"
            needs = f"needs {gigabytes(peak.bytes)} of {gigabytes(memory)} ({peak.peak.name}: {_terms(peak)})"
            typer.echo(f"{out} {peak.stage.replace('_', '-')} {needs}; {advice}", err=True)
    everything = smallest_changes(profile, memory)
    if everything:
        typer.echo(f"everything fits with: {as_options(everything)}", err=True)
    raise typer.Exit(FAILED)
