"""A prompt, a caption or a sentence may hold the text of the policy's own placeholder: no stage ends, no row is lost."""

from __future__ import annotations

from dataclasses import replace

from storage import lake
from storage.schema import Caption, Rollout, Sample
from tasks.configs.reward import LabelConfig, OtsuTau
from tasks.reward.score import score
from tasks.reward.shape_rewards import shape_rewards
from tasks.rollout.rollout import rollout
from tasks.train.finetune import finetune
from tests.support.small_world import (
    FINETUNE,
    ROLLOUT,
    drawn,
    policy,
    rollouts,
    samples,
    scorer,
    trained,
)

QUOTE = "The page says <image> in a box."


def test_a_prompt_in_the_form_of_llavas_files_is_answered_as_the_prompt_alone() -> None:
    rows = samples()
    tables = [lake.publish(Sample, [replace(rows[0], prompt=text), *rows[1:3]]) for text in ("<image>\nGo.", "Go.")]
    written, alone = (rollout.fn(ROLLOUT, policy(), drawn().images, some, seed=0) for some in tables)
    assert written.rollouts == alone.rollouts


def test_a_caption_that_quotes_the_placeholder_is_learned_from() -> None:
    texts = [QUOTE, *["A dog."] * (len(samples()) - 1)]
    captions = [
        Caption(s.sample_id, s.image_id, "p", "greedy", text, 1, "end", 1, 1)
        for s, text in zip(samples(), texts, strict=True)
    ]
    table = lake.publish(Caption, captions)
    output = finetune.fn(FINETUNE, policy(), drawn().images, drawn().samples, table, seed=0)
    assert output.policy.digest != policy().checkpoint.digest


def test_a_sentence_that_quotes_the_placeholder_is_valued() -> None:
    rows = lake.read_rows(Rollout, rollouts())
    quoting = lake.publish(Rollout, [replace(rows[0], text=f"{QUOTE} A dog sits."), *rows[1:]])
    scored = score.fn(scorer(), drawn().images, drawn().samples, quoting).scored
    rewards = shape_rewards.fn(LabelConfig(tau=OtsuTau()), scored).rewards
    assert trained(rewards=rewards).value
