"""The two kinds of value model as the fit uses them: something that learns, and a callable on (image, text) pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from storage.artifacts import Table
from storage.schema import Image
from tasks.configs.value import ValueConfig
from tasks.models.handles import PolicyHandle
from tasks.models.loading import StoredImages, fresh_policy, load_policy
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import current_runtime

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.models.value import StateValue, ValueModel
    from tasks.core.value.fit import ValueFn


class Answer(NamedTuple):
    """A labelled answer."""

    rollout_id: str
    image: int  # index into the images
    sentences: list[str]  # or names of their states
    rewards: list[float]
    prompt: str
    held_out: bool
    ends: Sequence[int] = ()  # offset after each sentence in the answer's text


class Labelled(NamedTuple):
    """Answers with their sentences' rewards, and the images that they are about, by index."""

    answers: list[Answer]
    image_ids: list[str]


class StoredPictures(Sequence["PIL.Image.Image"]):
    """Images of a table by index, decoded when they are needed; the last ones that were are kept."""

    KEPT = 256

    def __init__(self, images: Table[Image], image_ids: Sequence[str]) -> None:
        """Raises KeyError for an id that the table does not hold."""
        self._ids, stored = image_ids, StoredImages(images, image_ids)
        self._decoded = lru_cache(maxsize=self.KEPT)(stored.__getitem__)

    def __getitem__(self, index: Any) -> Any:
        return self._decoded(self._ids[index])

    def __len__(self) -> int:
        return len(self._ids)


class Learner(NamedTuple):
    """A value model to be fitted on `answers`, whose sentences are what `value` understands."""

    model: ValueModel | StateValue
    value: ValueFn
    answers: list[Answer]
    state: str  # what a transition goes between: sentence or prefix
    states_tokens: int  # read by the policy beforehand

    @property
    def value_tokens(self) -> int:
        """Tokens that the value model's own network has read so far."""
        return int(getattr(self.model, "tokens", 0))


def image_and_text(
    config: ValueConfig,
    value_backbone: PolicyHandle,
    answers: list[Answer],
    texts: Mapping[str, str],
    pictures: Sequence[PIL.Image.Image],
) -> Learner:
    """A network of its own, on the policy's weights."""
    from tasks.core.models.parts import recompute_activations
    from tasks.core.models.value import ValueModel, ValueSpec

    spec = ValueSpec(
        value_backbone.checkpoint.digest,
        config.train,
        config.layer,
        config.state,
        config.lora_rank,
        pooling=config.pooling,
    )
    # Of a text that is known a prefix is a part, with its own white space; else its sentences are joined by blanks.
    prefixes = config.state == "prefix" and all(answer.rollout_id in texts for answer in answers)
    policy = fresh_policy(value_backbone)
    with _setting():
        value = ValueModel(policy, spec)
    if policy.device.type != "cpu" and config.train != "frozen":
        recompute_activations(policy.model)
    return Learner(
        value,
        lambda pairs: value([pictures[image] for image, _ in pairs], [text for _, text in pairs]),
        _after_all_before(answers, texts) if prefixes else answers,
        "sentence" if prefixes else config.state,
        states_tokens=0,
    )


def _after_all_before(answers: Sequence[Answer], texts: Mapping[str, str]) -> list[Answer]:
    """Answers with every sentence after all before it, in place of the sentence."""
    return [
        answer._replace(sentences=[texts[answer.rollout_id][:end].strip() for end in answer.ends]) for answer in answers
    ]


def policy_states(
    config: ValueConfig,
    value_backbone: PolicyHandle,
    answers: list[Answer],
    texts: Mapping[str, str],
    pictures: Sequence[PIL.Image.Image],
) -> Learner:
    """A head on the policy's hidden states, which are read once; `texts` has every answer's whole text by rollout id."""
    import torch

    from tasks.core.models.states import sentence_states
    from tasks.core.models.value import StateValue, ValueSpec, check_layer

    policy, read = load_policy(value_backbone), 0
    with _setting():
        check_layer(policy, config.layer)
    with progress("train_value: the policy's states", len(answers), unit="answers") as advance:

        def after_batch(done: int, tokens: int) -> None:
            nonlocal read
            read += tokens
            advance(done)

        states = sentence_states(
            policy,
            [(partial(pictures.__getitem__, answer.image), answer.prompt) for answer in answers],
            [texts[answer.rollout_id] for answer in answers],
            layer=config.layer,
            batch_size=current_runtime().batch_size,
            after_batch=after_batch,
        )
    named = [
        answer._replace(sentences=[f"{answer.rollout_id}/{step}" for step in range(len(of_answer))])
        for answer, of_answer in zip(answers, states, strict=True)
    ]
    rows = torch.cat(states)  # on the host: those of a million sentences don't fit beside a model
    row_of = {name: row for row, name in enumerate(name for answer in named for name in answer.sentences)}
    learned = [row_of[name] for answer in named if not answer.held_out for name in answer.sentences]
    spec = ValueSpec(value_backbone.checkpoint.digest, "frozen", config.layer, "prefix", reads="policy_states")
    head = StateValue.of(rows[learned], spec, policy.device)
    # A name belongs to one answer, so the image need not be looked at; and it is no text to be joined to a prefix.
    return Learner(
        head,
        lambda pairs: head(rows[[row_of[name] for _, name in pairs]].to(policy.device)),
        named,
        state="sentence",
        states_tokens=read,
    )


@contextmanager
def _setting() -> Iterator[None]:
    """A setting that a model refuses is the profile's mistake: trying again is no use."""
    try:
        yield
    except ValueError as error:
        raise StageInputError(f"value.{error}") from error
