"""Stage 6 with `finetune.method: fisao`: the policy learns from a reward for every object word, by PPO."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from storage import lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Image, Rollout, Sample, TokenScore
from tasks.configs.train import FisaoConfig, FisaoSettings
from tasks.core.reward.object_words import Baselines, rewarded_tokens, units_of, word_rewards
from tasks.models.engine import open_engine
from tasks.models.handles import PolicyHandle
from tasks.models.loading import StoredImages, fresh_policy
from tasks.models.scorers import load_scores
from tasks.stage.calls import resume_folder
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.stage import stage
from tasks.train.training import TrainResult, recipe_of, train_result, training_progress

if TYPE_CHECKING:
    from tasks.core.models.policy import Policy
    from tasks.core.models.sentence_scores import Scores
    from tasks.core.train.answers import Answer


@dataclass(frozen=True)
class WordReward:
    """What rewards new answers: a scorer of object words, and the baselines that the round's own words gave."""

    scorer: ScorerCheckpoint
    baselines: Baselines


@stage()
def train_fisao(
    config: FisaoConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    rollouts: Table[Rollout],
    token_scores: Table[TokenScore],
    reward: WordReward,
    *,
    seed: int,
) -> TrainResult:
    """PPO on rewarded words. Figures: rewards, lengths and how far the policy moved.

    An iteration draws as many new answers as there are `rollouts`, no longer than the longest of these, at
    `fisao.temperature` from the whole distribution, and rewards them with the baselines that the rollouts gave. With
    `fisao.first: rollouts` the first one learns from `rollouts` with the rewards in `token_scores`. Not used of the
    configuration: epochs (fisao.passes is), checkpoint_steps (a resume point is written after every iteration).

    Raises:
        StageInputError: no word has a reward.
    """
    from tasks.core.train.ppo import PpoSettings, train_ppo

    rows = lake.read_rows(TokenScore, token_scores)
    if not any(row.reward for row in rows):
        raise StageInputError(
            f"none of {len(rows)} object words has a reward: nothing to learn; lower finetune.fisao.margin, and see that "
            "token_scores comes from the baselines"
        )
    sampled = lake.read_rows(Sample, samples)
    first_rollouts = lake.read_rows(Rollout, rollouts)
    pictures = StoredImages(images, {sample.image_id for sample in sampled})
    loaded = fresh_policy(policy)
    counters: Counter[str] = Counter()
    setup = _Setup(loaded, sampled, pictures, load_scores(reward.scorer, counters))
    stored = config.fisao.first == "rollouts"
    first = _first_answers(setup, first_rollouts, rows) if stored else []
    settings = PpoSettings(
        **config.fisao.model_dump(include={"clip", "kl", "gamma", "gae_lambda", "value_weight", "passes", "iterations"})
    )

    def answers_of(iteration: int) -> list[Answer]:
        if iteration == 0 and stored:
            return first
        drawn = _draw(setup, first_rollouts, config.fisao.temperature, ("fisao", seed, iteration))
        counters["new_answers"] += len(drawn)
        return _rewarded(setup, drawn, reward.baselines, config.fisao)

    with training_progress("train_fisao", 100, "%") as reached:
        figures = train_ppo(
            loaded,
            answers_of,
            recipe_of(config, seed),
            settings,
            work=resume_folder(),
            on_step=lambda share: reached(int(100 * share + 1e-9)),
        )
    shown = [(pictures[sample.image_id], sample.prompt) for sample in sampled[:4]]
    counted: dict[str, float] = dict(counters)
    if stored:
        counted |= {"answers": len(first), "empty_answers": len(first_rollouts) - len(first)}
    return train_result(config, policy, loaded, shown, figures, counted)


class _Setup(NamedTuple):
    """The policy, the samples it answers, and the scorer."""

    policy: Policy
    samples: list[Sample]
    pictures: StoredImages
    scores: Scores


class _TextAnswer(NamedTuple):
    """An answer of the policy."""

    sample: Sample
    text: str
    tokens: tuple[int, ...]  # without an end token
    ended: bool  # by the policy, not by the token limit


def _first_answers(setup: _Setup, sampled: Sequence[Rollout], rows: Sequence[TokenScore]) -> list[Answer]:
    """The round's rollouts with the rewards of the table."""
    words: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        words[row.rollout_id].append((row.end, row.reward or 0.0))
    sample_of = {sample.sample_id: sample for sample in setup.samples}
    texts = [
        _TextAnswer(
            sample_of[row.sample_id],
            row.text,
            tuple(setup.policy.answer_ids(row.text)) if row.text else (),
            row.finish_reason == "stop",
        )
        for row in sampled
    ]
    return _answers(setup, texts, [words[row.rollout_id] for row in sampled])


def _draw(setup: _Setup, like: Sequence[Rollout], temperature: float, seed: tuple[str | int, ...]) -> list[_TextAnswer]:
    """New answers, for each sample as many as there are in `like`."""
    from tasks.core.train.drawing import Drawing, draw_answers

    count = Counter(row.sample_id for row in like)
    longest = max(row.n_tokens for row in like)
    # Without the nucleus: what is learned is the policy's own probability of a token, the unlikely ones' too.
    engine = open_engine(setup.policy, top_p=1.0)
    todo = [sample for sample in setup.samples if count[sample.sample_id]]
    drawings = [
        Drawing(
            setup.pictures.picture(sample.image_id),
            sample.prompt,
            temperature,
            longest,
            seed=(*seed, sample.sample_id),
            draws=[(number,) for number in range(count[sample.sample_id])],
        )
        for sample in todo
    ]
    with progress("train_fisao: new answers", len(todo), unit="images") as advance:
        drawn = draw_answers(engine, drawings, advance)
    return [
        _TextAnswer(sample, each.text, each.tokens, each.ended)
        for sample, answers in zip(todo, drawn, strict=True)
        for each in answers
    ]


def _rewarded(setup: _Setup, texts: Sequence[_TextAnswer], baselines: Baselines, config: FisaoSettings) -> list[Answer]:
    """New answers with the rewards of their words, or of their sentences."""
    words = []
    for answer in texts:
        units = units_of(answer.text, config.rewards)
        image_id = answer.sample.image_id
        phrases = [(image_id, unit.phrase) for unit in units]
        scores = setup.scores.score({image_id: setup.pictures[image_id]}, phrases) if phrases else []
        rewards = word_rewards([unit.objects for unit in units], scores, baselines, margin=config.margin)
        words.append([(unit.end, reward) for unit, reward in zip(units, rewards, strict=True)])
    return _answers(setup, texts, words)


def _answers(setup: _Setup, texts: Sequence[_TextAnswer], words: Sequence[Sequence[tuple[int, float]]]) -> list[Answer]:
    """Answers as tokens, the end included; those without any token have nothing to be learned and are left out."""
    from tasks.core.train.answers import Answer

    tokenizer = setup.policy.tokenizer

    def text_of(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True)).lstrip()

    answers = []
    for answer, rewards in zip(texts, words, strict=True):
        placed = rewarded_tokens(answer.tokens, rewards, text_of) if answer.tokens else {}
        tokens = (*answer.tokens, setup.policy.end_id) if answer.ended else answer.tokens
        if tokens:
            sample = answer.sample
            answers.append(Answer(setup.pictures.picture(sample.image_id), sample.prompt, tokens, placed))
    return answers
