"""An experiment's paragraph: three sentences at most, without a hole, whatever the figures say."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from flows.experiments.catalogue import QUESTIONS, find
from flows.profiles.loading import CHECKOUT
from storage.schema import Finding
from tasks.analysis.findings import Evidence, Findings
from tasks.stage.plan import planning
from tests.support.tiny_run import tiny

PROFILE = tiny("evaluate.images=10", "sample.images=20")
PAIRED = ("chair_i", "recall", "length", "accuracy")
ALWAYS = (
    "chair_i",
    "recall",
    "tokens",
    "ms",
    "spearman",
    "auc",
    "pair_agreement",
    "refused",
    "general_change",
    "parameters",
)
WORDS = 130


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("paragraphs")
        shutil.copytree(
            CHECKOUT / "deployments" / "demo" / "policy", folder / "demo-models" / "seed-0" / "policy-third"
        )
        patch.setenv("VISLOOP_HOME", str(folder))
        yield folder


@cache
def planned(name: str, quick: bool) -> list[Evidence]:
    """The arms of an experiment and what each is paired with."""
    with planning():
        return find(name).run(PROFILE, quick)


def made_findings(name: str, quick: bool, seed: int, effect: float) -> Findings:
    """Random figures of all arms; differences lie about `effect` standard errors from zero."""
    rng, rows = random.Random(f"{name} {seed}"), {}
    for entry in planned(name, quick):
        for metric in dict.fromkeys([*find(name).columns, *ALWAYS]):
            value = rng.uniform(0.1, 0.9)
            rows[entry.arm, metric] = (entry.x, value, value - 0.1, value + 0.1)
        for other in entry.pairs:
            for metric in PAIRED:
                difference = 0.01 * rng.gauss(effect, 1)
                ends = difference - 0.02, difference + 0.02
                rows[entry.arm, f"{metric} - {other}"] = (entry.x, difference, *ends)
    figures = [
        Finding(name, arm, x, 0, metric, value, low, high, 300) for (arm, metric), (x, value, low, high) in rows.items()
    ]
    return Findings(figures)


@pytest.mark.parametrize("effect", [0.0, -9.0, 9.0], ids=["nothing sure", "lower", "higher"])
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_paragraph_has_three_sentences_at_most_and_no_hole(name: str, quick: bool, effect: float) -> None:
    text = find(name).answer(made_findings(name, quick, 0, effect))
    sentences = re.findall(r"[.!?](?=\s|$)", text)
    assert 1 <= len(sentences) <= 3 and text.endswith("."), text
    assert not re.search(r"nan\b|None|unknown|not compared|  |\(\)|: [;.]|not measured", text), text


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "compare"])  # whose arms a user names
def test_a_paragraph_is_short_even_with_all_arms(name: str) -> None:
    assert len(find(name).answer(made_findings(name, False, 1, 0.0)).split()) <= WORDS


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_conclusion_says_surely_only_of_what_is_sure(name: str) -> None:
    """Differences of no size at all: nothing is surely lower, higher or better."""
    text = find(name).answer(made_findings(name, False, 2, 0.0))
    claims = re.findall(r"surely (?:lower|higher) by", text)
    assert not claims, text
