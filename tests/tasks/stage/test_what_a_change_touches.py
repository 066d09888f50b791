"""Which stages a change of the code touches: those that use what was changed, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.data import sample
from tasks.evaluate import evaluate, promote
from tasks.reward import score, shape_rewards
from tasks.rollout import rollout
from tasks.search import search
from tasks.stage.identity import code_of
from tasks.train import finetune
from tasks.value import train_value
from tests.support.paths import ROOT

MODULES = (sample, rollout, score, shape_rewards, train_value, search, finetune, evaluate, promote)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def code(root: Path) -> dict[str, dict[str, str]]:
    code_of.cache_clear()
    from tasks.stage.identity import _parsed

    _parsed.cache_clear()
    digests = {}
    for module in MODULES:
        name = module.__name__
        digests[name.rpartition(".")[2]] = dict(code_of(name, root / f"{name.replace('.', '/')}.py", root))
    return digests


def touched(root: Path, file: str, old: str, new: str) -> set[str]:
    before, path = code(root), root / file
    text = path.read_text()
    assert old in text, f"{file} no longer holds {old!r}"
    try:
        path.write_text(text.replace(old, new))
        after = code(root)
    finally:
        path.write_text(text)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("core/reward/shaping.py", "-alpha * (margin - d)", "-alpha * (margin - d) ** 2", {"shape_rewards"}),
        ("core/reward/shaping.py", "# As printed in the paper", "# As the paper prints it", set()),
        ("core/reward/shaping.py", '"""From sentence scores to rewards.', '"""Other words.', set()),
        ("core/value/td.py", "reward + gamma * next_value", "reward + next_value", {"train_value"}),
        ("core/value/fit.py", "clip_grad_norm_(self.parameters.values(), 1.0)", "clip_grad_norm_([], 2.0)", {"train_value"}),
        ("core/search/guided.py", "eligible = grounded or eligible", "eligible = grounded", {"search"}),
        ("core/engine/draw.py", "stable=True", "stable=False", {"rollout", "search"}),
        ("core/engine/kv_prefix.py", "length=self.length + expected", "length=self.length", {"rollout", "search"}),
        ("core/search/majority_vote.py", "own_options(", "dict(", {"search"}),
        ("core/train/sft.py", "-log_probs.sum()", "-log_probs.mean()", {"finetune"}),
        ("core/benchmarks/chair.py", "mention.object not in truth", "mention.object in truth", {"evaluate"}),
        ("core/data/sampling.py", "jitter = ", "jitter = 1 + ", {"sample"}),
        ("evaluate/promote.py", "hallucination.ci_high < 0", "hallucination.ci_high <= 0", {"promote"}),
    ],
)  # fmt: skip
def test_a_change_touches_the_stages_that_use_it_and_no_other(
    checkout: Path, file: str, old: str, new: str, stages: set[str]
) -> None:
    assert touched(checkout, f"tasks/{file}", old, new) == stages
