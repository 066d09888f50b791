"""What rewards are worth: against the truth, and against one another."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.analysis.reward_quality import Scored, quality, within_image_auc, within_image_ranks
from tasks.core.reward.agreement import WITHIN, agreements

WRONG = [False, True, False, True, None]


def scored(scores: list[float | None], image: str = "a") -> list[Scored]:
    return [Scored(image, f"s{i}", item, WRONG[i % 5]) for i, item in enumerate(scores)]


def test_a_perfect_reward_and_its_opposite() -> None:
    good = scored([1.0, 0.0, 0.9, 0.1, 9.0])
    assert within_image_auc(good).value() == 1
    assert within_image_auc([item._replace(score=-(item.score or 0)) for item in good]).value() == 0


def test_an_image_with_one_kind_only_does_not_count_and_a_sentence_counts_once() -> None:
    only_true = [Scored("b", "s", 0.0, False)]
    again = [*scored([1.0, 0.0, 0.9, 0.1, 9.0]), Scored("a", "s1", 5.0, True)]
    assert within_image_auc([*again, *only_true]).top.tolist() == [1.0]


def test_without_truth_there_is_no_auc() -> None:
    rows = [item._replace(wrong=None) for item in scored([1.0, 0.0])]
    assert set(quality({"x": rows, "y": rows})["x"]) == {"rank: y"}


def test_ranks_are_those_of_reward_agreement() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    images = [f"i{n // 7}" for n in range(70)]
    a, b = rng.normal(size=70), rng.normal(size=70)
    a[3] = b[9] = np.nan
    b[14:21] = 0.5  # constant within an image
    rows = [
        [
            Scored(image, str(n), None if np.isnan(v) else float(v), None)
            for n, (image, v) in enumerate(zip(images, of, strict=True))
        ]
        for of in (a, b)
    ]
    (expected,) = [agreement for agreement in agreements({"a": a, "b": b}, images) if agreement.scope == WITHIN]
    result = within_image_ranks(*rows)
    assert result.value() == pytest.approx(expected.spearman) and len(result.top) == expected.n == 9


def test_other_sentences_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="other sentences"):
        within_image_ranks(scored([1.0, 2.0]), scored([1.0]))
