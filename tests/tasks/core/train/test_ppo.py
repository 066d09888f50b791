"""PPO: advantages by hand, a ratio that is 1 before anything is learned, a reference that stays, and training that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.core.models.policy import Policy, load_policy
from tasks.core.train.advantages import Experience, LeastSquares, generalised_advantages, ppo_losses, whiten
from tasks.core.train.answers import Answer, as_reference, read_answers
from tasks.core.train.ppo import PpoSettings, train_ppo
from tasks.core.train.weights import FinetuneError, Recipe, let_learn
from tests.support.paths import DEMO
from tests.support.tiny_models import tiny

TEXTS = ["There is a dog.", "I can see a pizza. There is a cup.", "There is a cake.", "There is a car. There is a bus."]
RECIPE = Recipe(
    train="full", lr=1e-3, epochs=1.0, batch_size=2, warmup_share=0.1, lora_rank=4, checkpoint_steps=9, seed=3
)
SETTINGS = PpoSettings(clip=0.2, kl=0.0, gamma=1.0, gae_lambda=0.95, value_weight=0.5, passes=2, iterations=1)


def answers_of(policy: Policy, pictures, prompts, rewarded: float = 1.0) -> list[Answer]:
    """The first of them is rewarded, the second is punished, the others have a word that is worth nothing."""
    (end,) = policy.end_ids
    result = []
    for i, text in enumerate(TEXTS):
        tokens = (*policy.tokenizer(text, add_special_tokens=False).input_ids, end)
        result.append(Answer(pictures[i], prompts[i], tokens, {len(tokens) - 3: (rewarded, -rewarded, 0.0, 0.0)[i]}))
    return result


@pytest.fixture
def answers(fresh_policy, pictures, prompts) -> list[Answer]:
    return answers_of(fresh_policy, pictures, prompts)


def train(policy: Policy, answers: list[Answer], work: Path, more=None, recipe=RECIPE, on_step=None, **settings):
    later = more or (lambda iteration: answers)
    return train_ppo(
        policy, lambda i: later(i) if i else answers, recipe, SETTINGS.__class__(**{**vars(SETTINGS), **settings}),
        work=work, on_step=on_step or (lambda share: None),
    )  # fmt: skip


@torch.no_grad()
def log_probs(policy: Policy, answers: list[Answer]) -> list[float]:
    """Of whole answers, one at a time."""
    return [float(read_answers(policy, [answer]).log_probs.sum()) for answer in answers]


def test_advantages_are_those_computed_by_hand() -> None:
    rewards, values = torch.tensor([[9.0, 0.0, 1.0, -2.0]]), torch.tensor([[9.0, 0.5, 1.0, -1.0]])
    mask = torch.tensor([[0.0, 1.0, 1.0, 1.0]])  # three tokens; before them is padding
    gains = generalised_advantages(rewards, values * mask, mask, gamma=0.9, lam=0.5)
    last = -2.0 + 1.0
    middle = 1.0 + 0.9 * -1.0 - 1.0 + 0.45 * last
    first = 0.0 + 0.9 * 1.0 - 0.5 + 0.45 * middle
    assert gains.advantages[0].tolist() == pytest.approx([0.0, first, middle, last])
    assert gains.returns[0].tolist() == pytest.approx([0.0, first + 0.5, middle + 1.0, last - 1.0])


def test_without_a_critic_and_discount_the_advantage_is_the_reward_to_go() -> None:
    rewards = torch.tensor([[1.0, 0.0, -3.0, 2.0]])
    gains = generalised_advantages(rewards, torch.zeros(1, 4), torch.ones(1, 4), gamma=1.0, lam=1.0)
    assert gains.advantages[0].tolist() == gains.returns[0].tolist() == [0.0, -1.0, -1.0, 2.0]


def test_whitened_advantages_have_mean_0_and_deviation_1_over_the_tokens_alone() -> None:
    mask = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    white = whiten(torch.tensor([[100.0, 1.0, 2.0], [3.0, 4.0, 9.0]]), mask)
    tokens = white[mask.bool()]
    assert tokens.mean().item() == pytest.approx(0, abs=1e-6)
    assert tokens.square().mean().item() == pytest.approx(1, rel=1e-5)
    assert white[0, 0] == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "learns"),
    [(1.0, 1.0, True), (1.3, 1.0, False), (1.3, -1.0, True), (0.7, -1.0, False), (0.7, 1.0, True)],
)
def test_a_ratio_beyond_the_clip_learns_only_back(ratio: float, advantage: float, learns: bool) -> None:
    log_ratio = torch.tensor([[ratio]]).log().requires_grad_()
    ones, zero = torch.ones(1, 1), torch.zeros(1, 1)
    losses = ppo_losses(log_ratio, zero, Experience(zero, zero, advantage * ones, zero, ones), clip=0.2)
    losses.policy.backward()
    assert log_ratio.grad.item() == pytest.approx(-advantage * ratio if learns else 0.0)
    assert losses.clipped.item() == (ratio != 1.0)


def test_padding_counts_for_nothing_in_the_losses() -> None:
    torch.manual_seed(0)
    log_probs, values, *parts = everything = [torch.randn(2, 5) * 0.1 for _ in range(6)]
    mask = torch.tensor([[0.0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    whole = ppo_losses(log_probs, values, Experience(*parts, mask), clip=0.2)
    for part in everything:
        part[0, :2] = 1e6
    again = ppo_losses(log_probs, values, Experience(*parts, mask), clip=0.2)
    assert [float(x) for x in whole] == pytest.approx([float(x) for x in again])


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="want one shape"):
        generalised_advantages(torch.zeros(2, 3), torch.zeros(2, 1), torch.ones(2, 3), gamma=1, lam=1)
    with pytest.raises(ValueError, match="want one shape"):
        ppo_losses(torch.zeros(2, 3), torch.zeros(2, 1), Experience(*[torch.zeros(2, 3)] * 5), clip=0.2)
    with pytest.raises(ValueError, match=r"want \[M, D\] and \[M\]"):
        LeastSquares(2).add(torch.zeros(3, 2), torch.zeros(3, 1))


def test_the_critic_starts_as_the_line_through_the_returns() -> None:
    torch.manual_seed(0)
    states = torch.randn(4000, 3) * torch.tensor([1.0, 50.0, 0.0])  # one component is always zero
    fit = LeastSquares(3, ridge=1e-6)
    fit.add(states[:1500], 2 * states[:1500, 0] - 0.1 * states[:1500, 1] + 5)
    fit.add(states[1500:], 2 * states[1500:, 0] - 0.1 * states[1500:, 1] + 5)
    weight, bias = fit.solve()
    assert weight.tolist() == pytest.approx([2, -0.1, 0], abs=0.02)
    assert bias.item() == pytest.approx(5, abs=0.02)


@pytest.mark.parametrize("architecture", ["llava", "qwen2_vl", "idefics3", "mllama"])
def test_an_answer_reads_the_same_alone_and_in_a_batch_and_as_its_logits(architecture: str, pictures, prompts) -> None:
    policy = tiny(architecture)
    words = [token for token in range(5, 40) if token not in policy.end_ids]
    several = [Answer(pictures[i], prompts[i], tuple(words[i : 3 + 4 * i]), {}) for i in range(3)]
    with torch.no_grad():
        together = read_answers(policy, several)
        for row, item in enumerate(several):
            alone, n = read_answers(policy, [item]), len(item.tokens)
            assert torch.allclose(together.log_probs[row, -n:], alone.log_probs[0], atol=1e-4)
            assert torch.allclose(together.states[row, -n:], alone.states[0], atol=1e-4)
            assert not together.log_probs[row, :-n].any()
        logits = (
            policy.model(**policy.answered([pictures[1]], [prompts[1]], [several[1].tokens])).logits[0].log_softmax(-1)
        )
    tokens = torch.tensor(several[1].tokens)
    expected = logits[-len(tokens) - 1 : -1].gather(1, tokens[:, None])[:, 0]
    assert torch.allclose(together.log_probs[1, -len(tokens) :], expected, atol=1e-4)


@pytest.mark.parametrize("train_what", ["full", "lora"])
def test_the_reference_is_the_policy_as_it_came_and_what_was_learned_comes_back(
    train_what: str, fresh_policy, answers
) -> None:
    from peft import get_peft_model

    from tasks.core.train.weights import adapters

    first = log_probs(fresh_policy, answers)
    before = let_learn(fresh_policy.model, train_what).weights
    fresh_policy.model.eval()
    model = (
        get_peft_model(fresh_policy.model, adapters(fresh_policy.model, 2))
        if train_what == "lora"
        else fresh_policy.model
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.ones_like(parameter))
    learned = log_probs(fresh_policy, answers)
    assert learned != pytest.approx(first, abs=1e-2)
    with as_reference(model, before, train_what):
        assert log_probs(fresh_policy, answers) == first
    assert log_probs(fresh_policy, answers) == learned


@pytest.mark.parametrize("train_what", ["full", "lora"])
def test_what_is_rewarded_becomes_likelier_and_what_is_punished_less(
    train_what: str, fresh_policy, answers, tmp_path
) -> None:
    at = [len(answer.tokens) - 3 for answer in answers]

    @torch.no_grad()
    def words() -> list[float]:
        return [
            float(read_answers(fresh_policy, [answer]).log_probs[0, i]) for answer, i in zip(answers, at, strict=True)
        ]

    vision = {n: p.detach().clone() for n, p in fresh_policy.model.named_parameters() if "vision" in n}
    before = words()
    recipe = RECIPE.__class__(**{**vars(RECIPE), "train": train_what})
    facts = train(fresh_policy, answers, tmp_path, recipe=recipe, passes=4)
    after = words()
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert facts["relative_change"] > 0
    assert facts["kl"] > 0
    assert (facts["reward_first"], facts["words_first"]) == (0.0, 1.0)
    there = dict(fresh_policy.model.named_parameters())
    assert all(torch.equal(there[name], weight) for name, weight in vision.items())
    assert not any("lora" in name or parameter.requires_grad for name, parameter in there.items())


def test_before_anything_is_learned_nothing_is_clipped_and_the_reference_is_the_policy(
    fresh_policy, answers, tmp_path
) -> None:
    facts = train(
        fresh_policy, answers, tmp_path, recipe=RECIPE.__class__(**{**vars(RECIPE), "batch_size": 4}), passes=1
    )
    assert facts["clip_share"] == 0
    assert facts["kl"] == pytest.approx(0, abs=1e-9)


def test_a_weighty_divergence_keeps_the_policy_nearer_to_its_reference(pictures, prompts, tmp_path) -> None:
    apart = {}
    for kl in (0.0, 10.0):
        policy = load_policy(DEMO / "policy", digest="demo")
        several = answers_of(policy, pictures, prompts)
        apart[kl] = train(policy, several, tmp_path / str(kl), kl=kl, iterations=3, passes=3)["kl"]
    assert apart[10.0] < apart[0.0]


@pytest.mark.parametrize("train_what", ["full", "lora"])
def test_resumed_training_ends_with_bit_equal_weights_and_the_same_facts(
    train_what: str, fresh_policy, pictures, prompts, answers, tmp_path
) -> None:
    recipe = RECIPE.__class__(**{**vars(RECIPE), "train": train_what})

    def seeing(policy: Policy):
        """New answers that depend on the policy as it is."""

        def more(iteration: int) -> list[Answer]:
            worth = log_probs(policy, answers[:1])[0]
            return answers_of(policy, pictures, prompts, rewarded=1.0 + iteration + worth / 10)

        return more

    whole = train(fresh_policy, answers, tmp_path / "whole", seeing(fresh_policy), recipe, iterations=3)

    def die(share: float) -> None:
        if share > 0.6:
            raise InterruptedError

    begun = load_policy(DEMO / "policy", digest="demo")
    with pytest.raises(InterruptedError):
        train(begun, answers, tmp_path / "work", seeing(begun), recipe, on_step=die, iterations=3)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["iteration-0001.safetensors"]
    (tmp_path / "work" / "iteration-0002.part").write_bytes(b"as left by a kill while it was written")

    shares: list[float] = []
    again = load_policy(DEMO / "policy", digest="demo")
    facts = train(again, answers, tmp_path / "work", seeing(again), recipe, on_step=shares.append, iterations=3)
    assert shares[0] > 1 / 3
    assert shares[-1] == pytest.approx(1)
    assert facts == whole
    there = dict(again.model.named_parameters())
    assert all(torch.equal(p, there[name]) for name, p in fresh_policy.model.named_parameters())


def test_no_answers_and_training_that_diverges_are_refused(fresh_policy, answers, tmp_path) -> None:
    with pytest.raises(FinetuneError, match="iteration 2: no answers to learn from"):
        train(fresh_policy, answers, tmp_path / "a", lambda iteration: [], iterations=2)
    with pytest.raises(FinetuneError, match=r"diverged.*lower finetune\.lr"):
        train(fresh_policy, answers, tmp_path / "b", recipe=RECIPE.__class__(**{**vars(RECIPE), "lr": 1e38}), passes=3)
