"""The redundancy term: what counts as a repetition, and that it is taken off the guide only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.clip_prm import clip_prm
from tasks.core.search.redundancy import content_words, overlap
from tests.support.number_world import World, by, proposed, run, script


def test_overlap_is_the_largest_jaccard_of_content_words() -> None:
    assert content_words("There is a Dog in the park.") == {"dog", "park"}
    assert overlap("A dog in a park.", ["The park.", "A red dog and a cat."]) == 0.5
    assert overlap("A dog.", ["It is the DOG!"]) == 1.0
    assert overlap("A dog.", ["A cat."]) == overlap("A dog.", []) == overlap("It is.", ["There they were."]) == 0.0


@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=3))
def test_overlap_is_a_share(text: str, before: list[str]) -> None:
    assert 0 <= overlap(text, before) <= 1


def test_redundancy_prefers_what_is_new() -> None:
    steps = proposed("A red dog."), proposed("A red dog runs.", "A blue sky.")
    scores = by({"A red dog.": 1, "A red dog runs.": 0.6, "A blue sky.": 0.5})
    assert run(clip_prm, World(script(*steps), scores), max_sentences=2).sentences[-1] == "A red dog runs."
    result = run(clip_prm, World(script(*steps), scores), redundancy=0.3, max_sentences=2)
    assert result.sentences[-1] == "A blue sky."
    assert [row.score for row in result.trace] == [1, 0.6, 0.5], "the trace holds the scores as they are"
