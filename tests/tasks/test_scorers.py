"""Scorers in three of their forms; the fourth, a plug-in, is in test_plugin_reward."""

from __future__ import annotations

from collections import Counter

import pytest

from storage import checkpoints
from tasks.configs import RuntimeConfig
from tasks.scorers import import_scorer, load_scores

pytestmark = pytest.mark.usefixtures("home")
FOLDER = "deployments/demo/scorer"


def test_a_folder_is_loaded_from_where_it_is() -> None:
    scores = load_scores(import_scorer(FOLDER), RuntimeConfig(device="cpu", threads=1), Counter())
    assert scores.scorer.context_length == 32


def test_a_scorer_that_open_clip_knows_is_kept_as_its_name() -> None:
    ref = import_scorer("ViT-L-14-336-quickgelu/openai")
    assert ref == import_scorer("ViT-L-14-336-quickgelu/openai") != import_scorer("ViT-B-32/openai")
    (kept,) = checkpoints.folder(ref).glob("*.txt")
    assert kept.read_text() == "ViT-L-14-336-quickgelu/openai"


def test_a_known_scorer_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.core.models.scorer as models

    asked = []
    monkeypatch.setattr(models, "load_scorer", lambda checkpoint, **options: asked.append(str(checkpoint)))
    load_scores(import_scorer("ViT-B-16/openai"), RuntimeConfig(device="cpu", threads=1), Counter())
    assert asked == ["ViT-B-16/openai"]


@pytest.mark.parametrize("place", ["nonsense", "a/b/c", "/no/such/folder", "name/"])
def test_anything_else_says_what_the_forms_are(place: str) -> None:
    with pytest.raises(ValueError, match=r"neither hf-hub:ORG/NAME nor NAME/PRETRAINED .* nor plugin:NAME"):
        import_scorer(place)
