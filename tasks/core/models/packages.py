"""Packages that a few checkpoints need and that visloop doesn't install by itself: how a missing one is reported."""

from __future__ import annotations

EXTRAS = {"num2words": "smolvlm"}  # package -> visloop's extra, in pyproject.toml


def missing_package(error: BaseException) -> str | None:
    """What to install, in a sentence, if a library's error is about a missing package of `EXTRAS`; else None."""
    if not isinstance(error, ImportError):
        return None
    for package, extra in EXTRAS.items():
        if package in str(error):
            return (
                f"its processor needs the package {package}, which is not installed; in visloop's checkout: "
                f"pip install --editable '.[{extra}]', or: pip install {package}"
            )
    return None
