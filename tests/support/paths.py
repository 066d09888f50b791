"""Where things are in the checkout, for tests in whatever folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "deployments" / "demo"
GOLDEN = ROOT / "tests" / "golden"
