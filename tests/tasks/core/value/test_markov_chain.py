"""Value training against chains whose values are known from a linear system; the released update misses them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.value_chain import ANSWERS, CIRCLE, GAMMA, LINEAR_MODES, TRACES, figure, learned, measure
from tasks.core.value.fit import METHODS
from tasks.core.value.td import lambda_returns, mc_returns


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_answers_are_as_frequent_as_the_chain_says() -> None:
    all_sentences = [sentences for _, sentences, _ in ANSWERS.answers()]
    pairs, begun = Counter[tuple[str, str]](), Counter[str]()
    for sentences in all_sentences:
        assert sentences[-1] not in ANSWERS.follows, "an answer broke off"
        pairs.update(pairwise(sentences))
        begun.update(sentences[:-1])
    for sentence, after in ANSWERS.follows.items():
        for other, chance in after.items():
            assert pairs[sentence, other] / begun[sentence] == float(chance)


@pytest.mark.parametrize("mode", LINEAR_MODES)
@pytest.mark.parametrize("method", METHODS)
def test_the_linear_system_is_solved_by_the_mean_of_the_returns(mode: str, method: str) -> None:
    trace = TRACES[method]
    exact = ANSWERS.exact(mode, trace)
    returns: dict[str, list[float]] = {}
    for _, sentences, rewards in ANSWERS.answers():
        values = [exact.get(sentence, 0.0) for sentence in sentences[1:]]
        result = lambda_returns(rewards, values, gamma=GAMMA, trace=trace, mode=mode)
        for item, value in zip(sentences, result, strict=True):
            returns.setdefault(item, []).append(value)
    for item, value in exact.items():
        assert np.mean(returns[item]) == pytest.approx(value, abs=1e-12)


def test_with_an_end_all_three_targets_have_one_solution_and_monte_carlo_is_its_definition() -> None:
    for mode in ("mean_to_go", "zero_terminal"):
        exact = ANSWERS.exact(mode, 0.0)
        assert exact == ANSWERS.exact(mode, 1.0)
        first = [
            mc_returns(rewards, gamma=GAMMA, mode=mode)[0]
            for _, sentences, rewards in ANSWERS.answers()
            if sentences[0] == "a"
        ]
        assert np.mean(first) == pytest.approx(exact["a"])


@pytest.mark.parametrize("mode", LINEAR_MODES)
@pytest.mark.parametrize("method", METHODS)
def test_training_finds_the_exact_values(mode: str, method: str) -> None:
    curve = learned(ANSWERS, mode, method, epochs=400)
    assert curve.errors[0] > 0.3
    assert curve.errors[-1] < 1e-4
    assert curve.values == pytest.approx({**dict.fromkeys(ANSWERS.states, 0.0), **curve.exact}, abs=1e-3)


def test_small_batches_find_them_too() -> None:
    for method in METHODS:
        curve = learned(ANSWERS, "mean_to_go", method, epochs=150, batch_size=8)
        assert curve.errors[-1] < 0.03, method


def test_the_released_broadcast_finds_one_value_for_all_sentences() -> None:
    """Same chain, same batches, same terminal mode: only the broadcast differs."""
    right = learned(CIRCLE, "bootstrap_forever", "td0", epochs=500)
    wrong = learned(CIRCLE, "bootstrap_forever", "published", epochs=500)
    assert right.errors[-1] < 1e-3
    seen = [reward for _, _, rewards in CIRCLE.answers() for reward in rewards[:-1]]
    for value in wrong.values.values():
        assert value == pytest.approx(np.mean(seen) / (1 - GAMMA), abs=1e-3)
    assert np.ptp(list(wrong.exact.values())) > 3
    assert wrong.errors[-1] > 1


def test_without_an_end_nothing_holds_the_last_values() -> None:
    values = learned(ANSWERS, "bootstrap_forever", "td0", epochs=50).values
    assert values["g"] == values["h"] == 0  # as they started: no transition trains them


def test_a_chain_whose_answers_differ_in_length_behind_a_sentence_has_no_mean_to_go() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        ANSWERS.sentences_from("a")


def test_the_figure_shows_all_fits() -> None:
    drawn = figure(measure(epochs=2)).decode()
    assert drawn.startswith("<svg")
    for word in ("TD(0)", "Monte Carlo", "released broadcast", *LINEAR_MODES):
        assert word in drawn
