"""Rewards that packages bring: looked up by name, called once for a sentence, and held to numbers."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.core.models.plugin_scorer import PluginScores, code_of, find_reward

SOURCE = "def by_length(image, sentences):\n    return [1 / len(text) if text else None for text in sentences]\n"
IMAGES = {job: Image.new("RGB", (4 + job, 4)) for job in range(3)}
PAIRS = [(0, "A dog."), (1, "A dog."), (0, "A cat sits."), (0, "A dog."), (2, "")]
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package with one reward, as pip leaves it."""

    def write(target: str = "their_reward:by_length", source: str = SOURCE, package: str = "their_reward") -> None:
        (tmp_path / "their_reward.py").write_text(source)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[visloop.rewards]\nlength = {target}\n")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    sys.modules.pop("their_reward", None)


def test_an_installed_reward_is_loaded_by_its_name(install: Install) -> None:
    install()
    reward = find_reward("length")
    assert reward(IMAGES[0], ["dogs", ""]) == [0.25, None]


def test_the_error_for_an_unknown_name_lists_what_is_installed(install: Install) -> None:
    with pytest.raises(ValueError, match=r"0 installed packages .* 'length', want one: .*installed: none is installed"):
        find_reward("length")
    install()
    with pytest.raises(ValueError, match=r"'width', want one: .*visloop.rewards \(installed: length\)"):
        find_reward("width")


def test_two_packages_cannot_have_one_name(install: Install) -> None:
    install()
    install(package="other_reward")
    with pytest.raises(ValueError, match="2 installed packages bring a reward 'length', want one"):
        find_reward("length")


def test_the_code_s_digest_is_that_of_the_file_that_defines_it(install: Install, tmp_path: Path) -> None:
    install()
    reward = find_reward("length")
    before = code_of(reward)
    assert before == code_of(reward)
    (tmp_path / "their_reward.py").write_text(SOURCE.replace("1 /", "2 /"))
    assert code_of(reward) != before


class Recorder:
    """A reward that records its calls."""

    def __init__(self, answer: Callable[[Sequence[str]], Any] = lambda texts: [float(len(text)) for text in texts]):
        self.answer, self.calls = answer, []

    def __call__(self, image: Image.Image, texts: Sequence[str]) -> Any:
        self.calls.append((image.width - 4, list(texts)))
        return self.answer(texts)


def test_a_sentence_is_scored_once_for_its_image_and_scores_keep_their_order() -> None:
    reward, counters = Recorder(), Counter()
    scores = PluginScores(reward, "length", counters)
    assert scores.score(IMAGES, PAIRS) == [6.0, 6.0, 11.0, 6.0, 0.0]
    assert reward.calls == [(0, ["A dog.", "A cat sits."]), (1, ["A dog."]), (2, [""])]
    assert scores.score(IMAGES, PAIRS[::-1]) == [0.0, 6.0, 11.0, 6.0, 6.0]
    assert len(reward.calls) == 3 and counters == {"texts_scored": 4}
    scores.forget(0)
    scores.forget("never seen")
    assert scores.score(IMAGES, PAIRS[:2]) == [6.0, 6.0]
    assert reward.calls[3:] == [(0, ["A dog."])]
    assert not scores.is_cut("A dog. " * 999)


def test_scores_are_numbers_or_none_of_whatever_kind() -> None:
    scores = PluginScores(Recorder(lambda texts: np.array([0.5] * len(texts), dtype=np.float32)), "r", Counter())
    assert scores.score(IMAGES, PAIRS) == [0.5] * 5
    assert all(type(score) is float for score in scores.score(IMAGES, PAIRS))
    scores = PluginScores(Recorder(lambda texts: [None] * len(texts)), "r", Counter())
    assert scores.score(IMAGES, PAIRS) == [None] * 5


@pytest.mark.parametrize("answer", [lambda texts: [1.0], lambda texts: [1.0, float("nan")], lambda texts: [1.0, 1e999]])
def test_another_number_of_scores_or_one_that_is_not_finite_is_refused(answer) -> None:
    with pytest.raises(
        ValueError, match=r"reward 'length' gave \[1.0.*\] for 2 sentences: want a finite number or None"
    ):
        PluginScores(Recorder(answer), "length", Counter()).score(IMAGES, [(0, "A dog."), (0, "A cat.")])
