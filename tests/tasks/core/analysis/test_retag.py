"""The same staged answers in other forms."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.core.analysis.retag import retag
from tasks.core.search.stages import STAGES
from tasks.core.staged.answers import in_stages, stages_of, stated

CONTENTS = ("I look for a dog.", "There is a dog on the left.", "There is a dog, so it is yes.", "Yes")
TAGGED = in_stages(CONTENTS)


def test_without_tags_nothing_else_is_changed() -> None:
    text = retag(TAGGED, "untagged", 0, "a")
    assert text == " ".join(CONTENTS)
    assert retag(text, "concluded", 0, "a") == "Yes"


def test_shuffled_stages_are_all_there_in_another_order_than_theirs() -> None:
    orders = Counter()
    for item in range(200):
        text = retag(TAGGED, "shuffled", 0, str(item))
        assert stages_of(text) is None and stated(text) == "Yes"  # out of place, and still to be judged
        assert all(f"<{stage}>{content}</{stage}>" in text for stage, content in zip(STAGES, CONTENTS, strict=True))
        orders[tuple(sorted(STAGES, key=text.index))] += 1
    assert STAGES not in orders and len(orders) == 23  # 4! - 1
    assert max(orders.values()) < 25


def test_a_shuffle_is_the_items_own_and_the_seeds() -> None:
    drawn = [retag(TAGGED, "shuffled", seed, item) for seed, item in ((0, "a"), (0, "a"), (1, "a"), (0, "b"), (2, "a"))]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1


def test_the_conclusion_alone() -> None:
    assert retag(TAGGED, "conclusion", 0, "a") == "Yes"


@pytest.mark.parametrize("text", ["Yes", "", "<SUMMARY>cut off", retag(TAGGED, "shuffled", 0, "a")])
def test_what_has_no_four_whole_stages_can_not_be_retagged(text: str) -> None:
    with pytest.raises(ValueError, match="four whole stages"):
        retag(text, "untagged", 0, "a")


@pytest.mark.parametrize(
    ("conclusion", "concluded"),
    [("There is a cat. No", "No"), ("Yes", "Yes"), ("", ""), (TAGGED, TAGGED), ("I see 3. So it is 3.", "So it is 3.")],
)
def test_of_an_answer_without_tags_the_last_sentence_counts(conclusion: str, concluded: str) -> None:
    assert retag(conclusion, "concluded", 0, "a") == concluded
