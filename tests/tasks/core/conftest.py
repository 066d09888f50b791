"""The shipped demo models and some scenes, loaded once for all tests of core."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from PIL import Image

from tests.support.demo_models import PROMPTS
from tests.support.paths import DEMO

# The same examples in every run, and no time limit: other work on the machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def policy():
    """Not to be trained: it is shared."""
    from tasks.core.models.policy import load_policy

    torch.set_num_threads(1)
    return load_policy(DEMO / "policy", digest="demo")


@pytest.fixture
def fresh_policy():
    """A copy to train."""
    from tasks.core.models.policy import load_policy

    torch.set_num_threads(1)
    return load_policy(DEMO / "policy", digest="demo")


@pytest.fixture(scope="session")
def scorer():
    from tasks.core.models.scorer import load_scorer

    torch.set_num_threads(1)
    return load_scorer(DEMO / "scorer", digest="demo")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    from tasks.core.demo.scenes import draw_scene, sample_scenes

    return [draw_scene(scene) for scene in sample_scenes("core tests", 16)]


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Of different lengths, so that a batch of them is padded."""
    return [PROMPTS[i % len(PROMPTS)] for i in range(16)]
