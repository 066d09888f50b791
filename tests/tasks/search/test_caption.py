"""Captions of any images: in the order of the paths, files that are no images, what guides a search."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from storage.artifacts import PolicyCheckpoint, ScorerCheckpoint, Table, ValueCheckpoint
from storage.schema import Value
from tasks.configs.search import SearchConfig
from tasks.models.handles import Guide, PolicyHandle, ValueHandle
from tasks.report.explain_page import trace_of, write_page
from tasks.search import caption as module
from tasks.search.caption import Described, Trained, caption_images
from tasks.stage.quarantine import StageInputError
from tests.support.made_captions import SIGN, FakeSearcher, answers, draw, guided, revised

POLICY = PolicyHandle(PolicyCheckpoint.of("a" * 64), dtype="bfloat16", trust_remote_code=True)
SCORER = ScorerCheckpoint.of("b" * 64)
VALUE, BACKBONE = ValueCheckpoint.of("c" * 64), PolicyCheckpoint.of("d" * 64)
HELD_OUT = Table[Value](kind="values", digest="e" * 64)
TRAINED = Trained("run", None, Guide(None, 0.2, ValueHandle(VALUE, PolicyHandle(BACKBONE)), HELD_OUT, (0.1, 0.3)))
FACTS = {"strategy": "visvm", "prompt": "What is <this>?"}


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Searcher", FakeSearcher)
    monkeypatch.setattr(module, "image_refusal", lambda policy: lambda width, height: None)
    monkeypatch.setattr(FakeSearcher, "made", [])


def described(paths: list[Path], trained: Trained | None = None, strategy: str = "greedy") -> list[Described]:
    return caption_images(
        paths,
        SearchConfig().model_copy(update={"strategy": strategy}),
        POLICY,
        scorer=SCORER,
        trained=trained,
        prompt="What is this?",
        seed=3,
    )


@pytest.fixture
def page(tmp_path: Path) -> str:
    paths = draw(tmp_path, ["street & co.jpg", "kitchen.png", "beach.png"])
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    path = tmp_path / "new" / "page.html"
    write_page(path, described([*paths, tmp_path / "broken.jpg"]), FACTS)
    return path.read_text(encoding="utf-8")


def test_captions_are_in_the_order_of_the_paths_and_bad_files_have_a_reason(tmp_path: Path) -> None:
    paths = draw(tmp_path, [f"{i}.png" for i in range(3)], size=(40, 30))
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    captions = described([paths[0], bad, *paths[1:]])
    assert [caption.path for caption in captions] == [paths[0], bad, *paths[1:]]
    assert [caption.result.text if caption.result else None for caption in captions] == [
        guided().text, None, answers().text, revised().text,
    ]  # fmt: skip
    assert "no image format" in captions[1].error and not captions[0].error


def test_without_a_good_image_no_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert [caption.result for caption in described([tmp_path / "bad.png"])] == [None]
    assert FakeSearcher.made == []


def test_a_search_gets_all_that_a_finished_run_has_learned(tmp_path: Path) -> None:
    described(draw(tmp_path, ["a.png"]), TRAINED)
    described(draw(tmp_path, ["a.png"]))
    (_, policy, guide, more), (*_, alone, _) = FakeSearcher.made
    assert policy == POLICY and more["seed"] == 3
    loaded_alike = replace(POLICY, checkpoint=BACKBONE)
    assert guide == Guide(SCORER, 0.2, ValueHandle(VALUE, loaded_alike), HELD_OUT, (0.1, 0.3))
    assert alone == Guide(SCORER)


def test_what_is_missing_is_explained_by_the_missing_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StageInputError("visvm needs a value model")

    monkeypatch.setattr(module, "Searcher", refuse)
    paths = draw(tmp_path, ["a.png"])
    with pytest.raises(StageInputError, match=r"visvm needs a value model\n.*no finished run.*visloop run"):
        described(paths)
    with pytest.raises(StageInputError, match=r"needs a value model$"):
        described(paths, TRAINED)


def test_json_has_the_trace_only_on_request() -> None:
    caption = Described(Path("a.png"), revised())
    assert caption.as_dict() == {"path": "a.png", "text": revised().text, "steps": 2, "stop_reason": "refined"}
    trace = json.loads(json.dumps(trace_of(caption)))
    assert [row["phase"] for row in trace] == ["answers", "answers", "refine", "refine", "refine"]
    assert [row["stop"] for row in trace] == [None] * 4 + ["refined"]
    broken = Described(Path("b.png"), None, "broken")
    assert broken.as_dict() == {"path": "b.png", "error": "broken"} and trace_of(broken) == []


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "<script" not in page and re.findall(r"url\(|@import", page) == []
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', page)) == 3


def test_text_of_a_model_a_file_or_a_person_is_never_markup(page: str) -> None:
    assert SIGN not in page and "<b>bakery" not in page
    assert "&lt;b&gt;bakery&lt;/b&gt; has its sign lit &amp; its door open." in page
    assert "street &amp; co.jpg" in page and "What is &lt;this&gt;?" in page


def test_the_page_shows_every_candidate_marks_the_chosen_ones_and_the_reason_to_stop(page: str) -> None:
    assert page.count('<td class="text">') == sum(len(made().trace) for made in (guided, answers, revised))
    assert page.count('<tr class="chosen">') == 6 == page.count("chosen: </span>")
    assert page.count("Stopped by <b>") == 3 and "score reached the margin</b>" in page
    assert "1 not described" in page and "no image format that Pillow knows" in page


def test_pictures_are_small_and_keep_their_shape(tmp_path: Path) -> None:
    tall, tiny = draw(tmp_path, ["tall.png"], size=(700, 1400)) + draw(tmp_path, ["tiny.png"], size=(20, 10))
    write_page(tmp_path / "page.html", described([tall, tiny]), FACTS)
    sizes = re.findall(r'width="(\d+)" height="(\d+)"', (tmp_path / "page.html").read_text())
    assert sizes == [("320", "640"), ("20", "10")]


def test_many_images_are_folded_and_listed(tmp_path: Path) -> None:
    paths = draw(tmp_path, [f"{i}.png" for i in range(7)], size=(40, 30))
    write_page(tmp_path / "page.html", described(paths), FACTS)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<details>") == 7 and text.count('<a href="#image-') == 7
    write_page(tmp_path / "page.html", described(paths[:2]), FACTS)
    assert (tmp_path / "page.html").read_text().count("<details open>") == 2


def test_an_image_that_the_processor_refuses_is_named_and_the_others_are_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "image_refusal", lambda policy: lambda width, height: "too thin" if width > 9 * height else None
    )
    paths = [*draw(tmp_path, ["thin.png"], size=(200, 8)), *draw(tmp_path, ["square.png"], size=(40, 40))]
    thin, square = described(paths)
    assert thin.result is None and thin.error == "thin.png: too thin"
    assert square.result is not None and not square.error
