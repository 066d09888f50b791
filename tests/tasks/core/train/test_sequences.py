"""On every architecture the ids that are trained are the ids that are decoded, and the loss is a plain forward's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.core.engine.fallback import open_decoder
from tasks.core.models.policy import Policy
from tasks.core.models.states import sentence_states
from tasks.core.train.answers import Answer, answer_tokens
from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.grpo import Question, Sampling, train_grpo
from tasks.core.train.ppo import PpoSettings, train_ppo
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import Recipe
from tests.support.drawing import engine_draw
from tests.support.sequences import POLICIES, fresh, reads, rendered, whole_inputs

PROMPTS = ["Describe the image.", "Describe the following image."]
TEXTS = ["There is a dog on the left. Two cats lie by it.", "A man walks to his house."]
SAMPLING = Sampling(generations=2, temperature=1.0, max_new_tokens=8, beta=0.0)


def run(work: Path, **options) -> TrainingRun:
    plain = dict(
        train="lora", lr=1e-3, epochs=1.0, batch_size=2, warmup_share=0.0, lora_rank=2, checkpoint_steps=99, seed=1
    )
    return TrainingRun(Recipe(**{**plain, **options}), work, lambda done, loss: None)


def prompt_ids(policy: Policy, pictures) -> list[list[int]]:
    """As the engine reads them before it decodes."""
    prompts = open_decoder(policy).start(pictures[:2], PROMPTS)
    return [list(prompt.ids) for prompt in prompts]


def decoded(policy: Policy, pictures) -> list[list[int]]:
    """Ids of prompts as the engine reads them, with the texts behind them and the end token."""
    plain = policy.tokenizer
    ids = []
    for prompt, text, before in zip(PROMPTS, TEXTS, prompt_ids(policy, pictures), strict=True):
        whole = rendered(policy, prompt, text)
        # The prompt's text has one placeholder an image, its ids one a patch: only the end is compared with the text.
        tail = plain(whole, add_special_tokens=False)["input_ids"]
        head = plain(rendered(policy, prompt, "").rstrip(" "), add_special_tokens=False)["input_ids"]
        assert tail[: len(head)] == head
        ids.append([*before, *tail[len(head) :]])
    return ids


@pytest.mark.parametrize("name", POLICIES)
def test_sft_and_dpo_learn_the_ids_that_would_be_decoded(name: str, pictures, tmp_path) -> None:
    policy = fresh(name)
    expected = decoded(policy, pictures)
    with reads(policy) as rows:
        train_sft(
            policy, [Example(*each) for each in zip(pictures, PROMPTS, TEXTS, strict=False)], run(tmp_path / "sft")
        )
    assert sorted(rows) == sorted(expected)
    policy = fresh(name)
    pairs = [PreferencePair(pictures[i], PROMPTS[i], TEXTS[i], "") for i in range(2)]
    with reads(policy) as rows:
        train_dpo(policy, pairs, run(tmp_path / "dpo"), beta=0.1)
    shortest = [[*ids, policy.end_id] for ids in prompt_ids(policy, pictures)]
    assert sorted(rows) == sorted(2 * (expected + shortest)), "once for the reference, once to learn"


@pytest.mark.parametrize("name", POLICIES)
def test_grpo_and_ppo_learn_the_ids_that_were_drawn(name: str, pictures, tmp_path) -> None:
    policy = fresh(name)
    questions = [Question(pictures[i], PROMPTS[i]) for i in range(2)]
    prompts, drawn = prompt_ids(policy, pictures), []
    draws = engine_draw(policy, questions, SAMPLING, seed=1)

    def draw(put, step):
        groups = draws(put, step)
        for request, group in zip(put, groups, strict=True):
            end = [policy.end_id]
            drawn.extend(
                [*prompts[request.question], *answer.tokens, *(end if answer.ended else [])] for answer in group
            )
        return groups

    with reads(policy) as rows:
        train_grpo(
            policy, questions, lambda indices, texts: [float(sum(map(ord, text))) for text in texts], draw,
            run(tmp_path / "grpo", batch_size=4), SAMPLING,
        )  # fmt: skip
    learned = [row for row in rows if row in drawn]
    assert sorted(learned[-4:]) == sorted(drawn)
    policy = fresh(name)
    answers = [Answer(pictures[i], PROMPTS[i], answer_tokens(policy, TEXTS[i]), {2: 1.0 - i}) for i in range(2)]
    settings = PpoSettings(clip=0.2, kl=0.0, gamma=1.0, gae_lambda=0.95, value_weight=0.5, passes=1, iterations=1)
    with reads(policy) as rows:
        train_ppo(
            policy, lambda iteration: answers, run(tmp_path).recipe, settings, work=tmp_path / "ppo",
            on_step=lambda share: None,
        )  # fmt: skip
    assert sorted(rows) == sorted(3 * decoded(policy, pictures)), "reference, policy, and one step"


@pytest.mark.parametrize("name", POLICIES)
def test_states_are_read_at_the_ids_that_would_be_decoded(name: str, pictures) -> None:
    policy = fresh(name)
    expected = [ids[:-1] for ids in decoded(policy, pictures)]
    seen: list[list[int]] = []
    hidden = policy.hidden

    class Watched(Policy):
        def hidden(self, inputs, layer):
            seen.extend(
                ids[mask.bool()].tolist()
                for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
            )
            return hidden(inputs, layer)

    watched = Watched(policy.model, policy.processor, policy.digest)
    sentence_states(watched, list(zip(pictures[:2], PROMPTS, strict=True)), TEXTS, layer=-1, batch_size=2)
    assert seen == expected


@pytest.mark.parametrize("name", POLICIES)
def test_the_loss_is_a_plain_forwards_cross_entropy(name: str, pictures, tmp_path) -> None:
    """The plain forward reads what the processor makes of the whole text: masks, tile sizes and token types are its own."""
    policy = fresh(name)
    inputs = whole_inputs(policy, pictures[1], rendered(policy, PROMPTS[1], TEXTS[1]))
    count = len(answer_tokens(policy, TEXTS[1]))
    with torch.inference_mode():
        logits = policy.model(**inputs).logits[0, -count - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, -count:]).item()
    examples = [Example(pictures[1], PROMPTS[1], TEXTS[1])]
    facts = train_sft(policy, examples, run(tmp_path, batch_size=1, train="full"))
    assert facts["loss_first"] == pytest.approx(expected, rel=1e-4)
    assert facts["relative_change"] > 0


@pytest.mark.parametrize(
    "text", ["The page says <image> in a box.", "He wrote </s> and went on.", "See <|image|> here."]
)
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "mllama"])
def test_special_tokens_in_a_caption_are_learned_as_plain_text(name: str, text: str, pictures, tmp_path) -> None:
    policy = fresh(name)
    special = set(policy.tokenizer.all_special_ids)
    with reads(policy) as rows:
        facts = train_sft(policy, [Example(pictures[0], PROMPTS[0], text)], run(tmp_path, batch_size=1))
    (row,) = rows
    answer = row[len(prompt_ids(policy, pictures)[0]) :]
    assert answer[-1] == policy.end_id
    assert not (special - {policy.tokenizer.unk_token_id}) & set(answer[:-1])
    assert facts["untrainable"] == 0


def test_mllamas_masks_and_tile_sizes_reach_the_loss(pictures, tmp_path, monkeypatch) -> None:
    def loss(change: str | None) -> float:
        policy = fresh("mllama")
        read = Policy.inputs

        def changed(self, *given, **options):
            inputs = read(self, *given, **options)
            if change == "cross_attention_mask":
                inputs[change] = torch.zeros_like(inputs[change])
            elif change == "aspect_ratio_ids":
                inputs[change] = inputs[change] % 8 + 1
            return inputs

        monkeypatch.setattr(Policy, "inputs", changed)
        example = Example(pictures[0].resize((56, 28)), PROMPTS[0], TEXTS[0])
        facts = train_sft(policy, [example], run(tmp_path / f"{change}", batch_size=1))
        monkeypatch.setattr(Policy, "inputs", read)
        return facts["loss_first"]

    plain = loss(None)
    assert abs(loss("cross_attention_mask") - plain) > 1e-3
    assert abs(loss("aspect_ratio_ids") - plain) > 1e-6
