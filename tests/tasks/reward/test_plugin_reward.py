"""An installed reward as the scorer: stored as name and code, called by the score stage and by searches."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import lake
from storage.schema import Caption, Quarantined, Reward, Rollout, SearchStep
from tasks.models.handles import Guide
from tasks.models.scorers import import_scorer, load_scores
from tasks.reward.score import score
from tasks.search.search import search
from tests.support.small_world import SEARCH, drawn, policy, rollouts

SOURCE = """
def by_length(image, sentences):
    assert image.size == (96, 96)
    return [1 / len(sentence) if len(sentence) % 5 else None for sentence in sentences]
"""
WriteModule = Callable[[str], None]


@pytest.fixture
def reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """`length` is installed; another text of it can be written."""
    info = tmp_path / "stage_reward-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stage-reward\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[visloop.rewards]\nlength = stage_reward:by_length\n")

    def write(source: str) -> None:
        (tmp_path / "stage_reward.py").write_text(source)
        sys.modules.pop("stage_reward", None)
        importlib.invalidate_caches()

    write(SOURCE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    sys.modules.pop("stage_reward", None)


def test_its_reference_changes_with_its_code_and_with_nothing_else(reward: WriteModule) -> None:
    before = import_scorer("plugin:length")
    assert import_scorer("plugin:length") == before
    reward(SOURCE.replace("1 /", "2 /"))
    assert import_scorer("plugin:length") != before
    reward(SOURCE)
    assert import_scorer("plugin:length") == before


def test_an_unknown_name_is_refused(reward: WriteModule) -> None:
    with pytest.raises(ValueError, match=r"'width', want one: .*\(installed: length\)"):
        import_scorer("plugin:width")


def test_sentences_of_rollouts_are_scored_with_it(reward: WriteModule) -> None:
    world, scorer = drawn(), import_scorer("plugin:length")
    output = score.fn(scorer, world.images, world.samples, rollouts())
    rows = lake.read_rows(Reward, output.scored)
    assert {row.rollout_id for row in rows} == {row.rollout_id for row in lake.read_rows(Rollout, rollouts())}
    for row in rows:
        unknown = len(row.sentence) % 5 == 0
        assert row.score == (None if unknown else pytest.approx(1 / len(row.sentence)))
        assert row.reason == ("the reward gave none" if unknown else None)
        assert (row.scorer, row.truncated) == (scorer.digest, False)
    assert any(row.score is None for row in rows) and any(row.score is not None for row in rows)
    assert output.counters["texts_scored"] == len({(row.sample_id, row.sentence) for row in rows})
    assert not lake.read_rows(Quarantined, output.quarantine)


def test_a_search_is_guided_by_it(reward: WriteModule) -> None:
    world, scorer = drawn(), import_scorer("plugin:length")
    output = search.fn(
        SEARCH.model_copy(update={"strategy": "clip_prm", "end": "policy"}), policy(), world.images,
        world.samples, Guide(scorer), seed=0,
    )  # fmt: skip
    assert all(row.text for row in lake.read_rows(Caption, output.captions))
    steps: dict[tuple[str, int], list[SearchStep]] = {}
    for row in lake.read_rows(SearchStep, output.search_trace):
        steps.setdefault((row.sample_id, row.step), []).append(row)
    for rows in steps.values():
        known = [row for row in rows if row.score is not None]
        assert all(row.score == pytest.approx(1 / len(row.text)) for row in known)
        assert all(row.score == max(rival.score for rival in known) for row in known if row.chosen)
    assert any(row.chosen for rows in steps.values() for row in rows if row.score is not None)
    assert output.counters["texts_scored"] > 0


@pytest.mark.parametrize("wrong", ["[1.0]", "[float('nan') for _ in sentences]"])
def test_anything_but_a_score_for_every_sentence_ends_the_stage(reward: WriteModule, wrong: str) -> None:
    reward(f"def by_length(image, sentences):\n    return {wrong}\n")
    world = drawn()
    with pytest.raises(ValueError, match=r"reward 'length' gave .* want a finite number or None for each"):
        score.fn(import_scorer("plugin:length"), world.images, world.samples, rollouts())


def test_it_is_loaded_by_its_name_in_any_later_run(reward: WriteModule) -> None:
    scores = load_scores(import_scorer("plugin:length"), Counter())
    assert (scores.name, scores.is_cut("A dog. " * 100)) == ("length", False)
