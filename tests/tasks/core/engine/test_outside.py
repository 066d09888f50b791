"""Decoding methods of transformers against `generate`, their papers' formulas, and other batches."""

from __future__ import annotations

import pytest
import torch

from tasks.core.engine import custom_generate
from tasks.core.engine.custom_generate import contrastive_scores
from tasks.core.engine.outside import DEFAULTS, GeneratedAnswer, generate_answers

LIMIT = 60


def answers(policy, pictures, prompts, method: str, limit: int = LIMIT, **options: float) -> list[GeneratedAnswer]:
    return generate_answers(policy, pictures, prompts, method=method, options=options, max_new_tokens=limit)


def tokens_of(policy, pictures, prompts, method: str, limit: int = LIMIT, **options: float) -> list[tuple[tuple, bool]]:
    return [(answer.tokens, answer.ended) for answer in answers(policy, pictures, prompts, method, limit, **options)]


def generated(policy, pictures, prompts, limit: int = LIMIT, **options) -> list[tuple[tuple, bool]]:
    """(tokens, ended) of each answer by `generate` itself."""
    inputs = policy.inputs(pictures, prompts)
    out = policy.model.generate(**inputs, do_sample=False, max_new_tokens=limit, **options)
    rows = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in policy.end_ids), len(row))
        rows.append((tuple(row[:end]), end < len(row)))
    return rows


@pytest.fixture(scope="module")
def some(pictures, prompts):
    """Eight pictures, and prompts of different lengths."""
    return pictures[:8], prompts[:8]


@pytest.mark.parametrize("limit", [7, LIMIT])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("method", ["beam", "diverse_beam"])
def test_beams_of_one_group_give_what_generate_gives(
    policy, some, method: str, length_penalty: float, limit: int
) -> None:
    options = {"groups": 1} if method == "diverse_beam" else {}
    expected = generated(policy, *some, limit, num_beams=3, length_penalty=length_penalty)
    assert tokens_of(policy, *some, method, limit, num_beams=3, length_penalty=length_penalty, **options) == expected
    assert all(ended == (limit == LIMIT) for _, ended in expected)


def test_beam_search_is_not_greedy_here(policy, some) -> None:
    assert tokens_of(policy, *some, "beam") != generated(policy, *some)


def test_groups_without_a_penalty_are_so_many_equal_beam_searches(policy, some) -> None:
    together = tokens_of(policy, *some, "diverse_beam", num_beams=6, groups=3, diversity_penalty=0.0)
    assert together == tokens_of(policy, *some, "beam", num_beams=2)


def test_a_penalty_makes_groups_begin_with_different_tokens(policy, some, monkeypatch) -> None:
    fed: list[torch.Tensor] = []
    feed = custom_generate._Rows.feed
    monkeypatch.setattr(custom_generate._Rows, "feed", lambda rows, *a: fed.append(a[0]) or feed(rows, *a))
    for penalty in (0.0, 1e4):
        answers(policy, *some, "diverse_beam", 3, num_beams=6, groups=3, diversity_penalty=penalty)
    alike, unlike = (fed[at].view(8, 3, 2) for at in (0, len(fed) // 2))
    assert torch.equal(alike[:, :1].expand_as(alike), alike)
    assert torch.equal(unlike[:, 0], alike[:, 0]), "the first group is free"
    for groups in unlike.tolist():
        assert len({token for group in groups for token in group}) == 6
        assert all(len(set(group)) == 2 for group in groups)


def test_the_likeliest_answer_of_all_groups_is_given(policy, some, monkeypatch) -> None:
    searches: list[custom_generate._Group] = []
    make = custom_generate._Group
    monkeypatch.setattr(custom_generate, "_Group", lambda *a: searches.append(make(*a)) or searches[-1])
    given = tokens_of(policy, *some, "diverse_beam", groups=4)
    winners = []
    for prompt, (tokens, _) in enumerate(given):
        best = [search.finished[0] for search in searches[4 * prompt : 4 * prompt + 4]]
        winners.append(max(range(4), key=lambda group: best[group][0]))
        assert best[winners[-1]][1][:-1] == list(tokens)
    assert len(set(winners)) > 1


def test_the_penalty_decides_the_choice_and_stays_out_of_the_score() -> None:
    search = custom_generate._Group(2, 1.0)
    search.tokens, search.scores = [[7], [8]], [-1.0, -2.0]
    log_probs = torch.tensor([[[-0.5, -1.0, -9.0], [-0.25, -9.0, -9.0]]])
    (free,) = custom_generate._candidates([search], log_probs, torch.zeros(1, 3), ends=1)
    assert free[:3] == [(-1.5, 0, 0), (-2.0, 0, 1), (-2.25, 1, 0)]
    (lowered,) = custom_generate._candidates([search], log_probs, torch.tensor([[3.0, 0.0, 0.0]]), ends=1)
    assert lowered[:3] == [(-2.0, 0, 1), (-1.5, 0, 0), (-2.25, 1, 0)]


def test_a_candidate_that_ends_counts_only_among_the_first_beams() -> None:
    search = custom_generate._Group(2, 1.0)
    end = frozenset([0])
    assert search.take([(-1.0, 0, 5), (-2.0, 0, 0), (-3.0, 0, 6), (-4.0, 0, 7)], end, last=False) == [(0, 5), (0, 6)]
    assert search.finished == [(-2.0, [0])]
    assert search.take([(-1.5, 0, 5), (-2.0, 1, 5), (-2.5, 1, 0)], end, last=False) == [(0, 5), (1, 5)]
    assert search.finished == [(-2.0, [0])]
    assert search.take([(-3.0, 1, 0), (-9.0, 0, 5), (-9.5, 0, 6)], end, last=False) == []
    assert search.finished == [(-1.0, [6, 5, 0]), (-2.0, [0])] and not search.active


@pytest.mark.parametrize("options", [{"penalty_alpha": 0.0}, {"top_k": 1}])
def test_contrastive_search_without_a_choice_is_greedy(policy, some, options) -> None:
    assert tokens_of(policy, *some, "contrastive", **options) == generated(policy, *some)


def test_contrastive_scores_are_probability_less_the_largest_cosine() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1]])
    states = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]])
    seen = torch.tensor([[[0.0, -1.0], [1.0, 0.0], [0.8, -0.6]]])
    cosines = torch.tensor([[1.0, 0.6, 0.6]])  # the first is padding
    mask = torch.tensor([[0, 1, 1]])
    for alpha, chosen in ((0.0, 0), (0.3, 0), (0.6, 1), (1.0, 1)):
        scores = contrastive_scores(probabilities, states, seen, mask, alpha)
        assert torch.allclose(scores, (1 - alpha) * probabilities - alpha * cosines)
        assert scores.argmax() == chosen


@torch.inference_mode()
def test_contrastive_search_is_its_formula_without_a_cache(policy, some) -> None:
    picture, prompt, alpha, k = some[0][0], some[1][0], 0.6, 3
    inputs = policy.inputs([picture], [prompt])

    def read(ids: torch.Tensor):
        return policy.model(
            input_ids=ids[None], pixel_values=inputs["pixel_values"], output_hidden_states=True, use_cache=False
        )

    ids = inputs["input_ids"][0]
    for _ in range(12):
        probabilities = read(ids).logits[0, -1].softmax(dim=0)
        scores = {}
        for token in probabilities.topk(k).indices.tolist():
            states = read(torch.cat([ids, torch.tensor([token])])).hidden_states[-1][0]
            repeats = torch.cosine_similarity(states[-1:], states[:-1]).max()
            scores[token] = (1 - alpha) * probabilities[token] - alpha * repeats
        ids = torch.cat([ids, torch.tensor([max(scores, key=scores.get)])])
    expected = tuple(ids[inputs["input_ids"].shape[1] :].tolist())
    assert tokens_of(policy, [picture], [prompt], "contrastive", 12, top_k=k) == [(expected, False)]


@pytest.mark.parametrize("method", list(DEFAULTS))
def test_a_padded_batch_gives_what_its_prompts_give_alone(policy, some, method: str) -> None:
    assert (policy.inputs(*some)["attention_mask"][:, 0] == 0).any(), "nothing is padded on the left"
    alone = [tokens_of(policy, [i], [p], method)[0] for i, p in zip(*some, strict=True)]
    assert tokens_of(policy, *some, method) == alone
    assert len({len(tokens) for tokens, _ in alone}) > 2


def test_tokens_are_counted_in_all_rows(policy, some) -> None:
    single = [some[0][0]], [some[1][0]]
    (contrastive,) = answers(policy, *single, "contrastive", top_k=3)
    assert contrastive.ended and contrastive.drawn == 3 * (len(contrastive.tokens) + 1)
    (beam,), (diverse,) = answers(policy, *single, "beam", 5), answers(policy, *single, "diverse_beam", 5, num_beams=6)
    assert (beam.drawn, diverse.drawn) == (4 * 5, 6 * 5)
    (beam,), (diverse,) = answers(policy, *single, "beam"), answers(policy, *single, "diverse_beam", groups=1)
    assert beam.drawn == diverse.drawn >= 4 * (len(beam.tokens) + 1)
    assert beam.text == policy.tokenizer.decode(list(beam.tokens)).strip()


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("nucleus", {}, "'nucleus' is unknown: want one of beam, diverse_beam, contrastive"),
        ("beam", {"top_k": 3}, "beam has no option top_k: it has num_beams, length_penalty"),
        ("beam", {"num_beams": 2.5}, "num_beams is 2.5: want a whole number"),
        ("contrastive", {"top_k": 0}, "top_k is 0: want a whole number from 1"),
        ("contrastive", {"penalty_alpha": 1.5}, "penalty_alpha is 1.5: want 0"),
        ("diverse_beam", {"groups": 3}, "4 beams in 3 groups"),
        ("diverse_beam", {"diversity_penalty": -1.0}, "diversity_penalty is -1.0: want 0 or more"),
    ],
)
def test_what_a_method_does_not_know_is_refused(policy, some, method: str, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answers(policy, *some, method, **options)
