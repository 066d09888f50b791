"""Teaches the second policy to caption, to answer plainly, in stages when instructed to, and to judge two answers.

It starts from the first policy's weights, but has a vocabulary of its own, so that nothing that passes between the two may
depend on token ids.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

from tasks.core.data.questions import KINDS, Kind
from tasks.core.demo.answers import direct_answer, staged_answer
from tasks.core.demo.captions import PROMPTS, caption, caption_text
from tasks.core.demo.descent import Descent
from tasks.core.demo.judging import draw_pair
from tasks.core.demo.policy_model import ASSISTANT, BOS, CONTEXT, EOS, IMAGE, PAD, USER, build_policy, token_id
from tasks.core.demo.questions import scene_questions, staged
from tasks.core.demo.scenes import Scene, sample_scene, sample_scenes
from tasks.core.demo.train_places import first_tokens, train_places
from tasks.core.demo.train_policy import IGNORED, prompt_ids
from tasks.core.demo.train_vision import pixel_values
from tasks.core.search.stages import STAGES, closing, opening

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

VOCABULARY = 940  # tokens at most, the tags not counted: a judge's prompt is words, a category is one token or two
TAGS = tuple(tag for stage in STAGES for tag in (opening(stage), closing(stage)))
SHARES = {"caption": 0.12, "direct": 0.33, "staged": 0.55, "reading": 0.75, "judging": 0.25}  # rows of a batch
WEIGHTS = {"caption": 1.0, "direct": 1.0, "staged": 2.0, "reading": 2.0, "judging": 2.0}  # of each kind's loss
QUESTIONS = 6  # plain ones an image, one after the other: the image is read once
LR = 1e-3
PLACING = 300  # steps of 48 scenes that teach the vision tower where objects are, before any text is read
LOOKING = 0.3  # of the steps, the first ones, teach plain answers alone,
HONEST = 0.75  # and these, true ones only: wrong answers don't teach to see

READ: tuple[Kind, ...] = ("what", "what", "how_many")  # kinds of question that can be answered from a caption alone

Turn = tuple[str, str]  # prompt and answer


def turns_about(rng: random.Random, scene: Scene, kind: str, *, honest: bool = False) -> list[Turn]:
    """A conversation about a scene; `kind` is one of SHARES but judging; `honest` answers are as true as their captions.

    Plain questions are drawn one by one, so that an answer reveals nothing about the next. `reading` is a staged answer about
    a few of the scene's objects, to be gone on with from its caption, without the image.
    """
    if kind == "caption":
        return [(rng.choice(PROMPTS), caption_text(caption(rng, scene)))]
    if kind == "direct":
        questions = {
            question.prompt: question for _ in range(QUESTIONS) for question in scene_questions(rng, scene)
        }.values()
        return [(item.prompt, item.answer if honest else direct_answer(rng, scene, item)) for item in questions]
    kinds: tuple[Kind, ...] = KINDS
    if kind == "reading":
        scene = replace(scene, objects=scene.objects[: rng.randint(1, len(scene.objects))])
        kinds = (rng.choice(READ),)
    (question,) = scene_questions(rng, scene, kinds=kinds)
    return [(staged(question.prompt), staged_answer(rng, scene, question, honest=honest))]


def collate_conversations(
    tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Sequence[Turn]], image_tokens: int
) -> dict[str, Tensor]:
    """As `collate`, for conversations of several turns about one image; loss on all answers."""
    rows: list[tuple[list[int], list[int]]] = []
    for turns in conversations:
        ids: list[int] = []
        labels: list[int] = []
        for prompt, answer in turns:
            turn = prompt_ids(tokenizer, prompt, image_tokens)
            turn = turn if not ids else [turn[1], *turn[2 + image_tokens :]]  # no second start, no second image
            learned = [*tokenizer(answer).input_ids, tokenizer.eos_token_id]
            ids += turn + learned
            labels += [IGNORED] * len(turn) + learned
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows]),
    }


_WITHOUT_TAGS = re.compile("|".join(TAGS))
CHOICE = " response"  # the last word of a verdict before its number


def _corpus() -> Iterator[str]:
    rng = random.Random("tokenizer of answers")
    for scene in sample_scenes("tokenizer of answers", 3000):
        yield from turns_about(rng, scene, "caption")[0]
        for question in scene_questions(rng, scene, count=QUESTIONS):
            yield from (question.prompt, direct_answer(rng, scene, question))
        for text in turns_about(rng, scene, "staged")[0]:
            yield _WITHOUT_TAGS.sub("\n", text)
        for text in draw_pair(rng, scene).turn(better_first=rng.random() < 0.5):
            yield _WITHOUT_TAGS.sub("\n", text)


def build_answer_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of its own, learned from questions and answers; each tag is one plain token.

    Any text round-trips, and a tag survives where special tokens are skipped: it is text, as in the paper.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, IMAGE, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def start_from(
    first: Any, first_tokenizer: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast
) -> LlavaForConditionalGeneration:
    """A policy of the first one's shape with its weights; a token it hasn't starts at random (seed torch before)."""
    text = first.config.text_config
    model = build_policy(first.model.vision_tower, tokenizer, width=text.hidden_size, layers=text.num_hidden_layers)
    known = first_tokenizer.get_vocab()
    old: Tensor = first.get_input_embeddings().weight
    new: Tensor = cast("Any", model).get_input_embeddings().weight
    weights = {name: tensor for name, tensor in first.state_dict().items() if tensor.shape != old.shape}
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for token, row in tokenizer.get_vocab().items():
            if token in known:
                new[row] = old[known[token]]
    return model


def stage_balanced_loss(logits: Tensor, labels: Tensor, closing_ids: Sequence[int]) -> Tensor:
    """Cross-entropy of logits [B, T, V] with the next of labels [B, T], in nats: the mean of the stages' means.

    A stage ends with one of the closing tags; an untagged answer is one stage. In a plain mean the one word of a summary or
    a conclusion that matters would weigh a hundredth of its caption, and be learned that much later.
    """
    following = labels[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), following, ignore_index=IGNORED, reduction="none")
    closes = torch.isin(following, torch.tensor(closing_ids))
    stage = closes.long().cumsum(dim=1) - closes.long()  # a closing tag belongs to the stage that it ends
    learned = following != IGNORED
    means = [losses[learned & (stage == number)].mean() for number in stage[learned].unique()]
    return torch.stack(means).mean()


def _loss(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scene],
    conversations: Sequence[Sequence[Turn]],
    kind: str,
) -> Tensor:
    """Of the answers; those for `reading` have no image, and their captions are given, not learned.

    Of a verdict the number is learned apart from the words before it, as the stages of an answer are.
    """
    blind = kind == "reading"
    inputs = collate_conversations(tokenizer, conversations, 0 if blind else model.config.image_seq_length)
    labels = inputs.pop("labels")
    if blind:
        begins, ends = (
            (labels == token_id(tokenizer, tag("CAPTION"))).long().cumsum(dim=1) for tag in (opening, closing)
        )
        labels[begins > ends] = IGNORED
    else:
        inputs["pixel_values"] = pixel_values(scenes)
    closing_ids = [token_id(tokenizer, closing(stage)) for stage in STAGES[:-1]]
    if kind == "judging":
        closing_ids = tokenizer(CHOICE).input_ids
    return stage_balanced_loss(model(**inputs).logits, labels, closing_ids)


def draw_batch(
    rng: random.Random, kind: str, rows: int, *, honest: bool = False
) -> tuple[list[Scene], list[list[Turn]]]:
    """`rows` scenes with a conversation each; two texts to be judged are a row in either order, so no place is better."""
    if kind != "judging":
        scenes = [sample_scene(rng) for _ in range(rows)]
        return scenes, [turns_about(rng, scene, kind, honest=honest) for scene in scenes]
    drawn = [sample_scene(rng) for _ in range((rows + 1) // 2)]
    pairs = [draw_pair(rng, scene) for scene in drawn]
    turns = [[pair.turn(better_first=first)] for pair in pairs for first in (True, False)]
    return [scene for scene in drawn for _ in range(2)], turns


def train_answers(
    first: Any,
    first_tokenizer: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    batch: int,
    seed: int,
) -> Iterator[tuple[int, dict[str, float], LlavaForConditionalGeneration]]:
    """Train from the first policy, yielding (step, loss in nats a token by kind, the model) as it goes.

    First where things are (`train_places`), then true plain answers, then everything as it is to be answered.
    """
    torch.manual_seed(seed)
    rng = random.Random(f"answers {seed}")
    model = start_from(first, first_tokenizer, tokenizer).train()
    train_places(model, first_tokens(tokenizer), steps=min(PLACING, steps), batch=48, seed=seed)
    descent = Descent(model.parameters(), lr=LR, steps=steps)
    for step in range(1, steps + 1):
        looking, honest = step <= LOOKING * steps, step <= HONEST * steps
        losses: dict[str, float] = {}
        for kind in ("direct",) if looking else tuple(SHARES):  # apart: a short row isn't padded to the longest
            scenes, conversations = draw_batch(rng, kind, round(batch * SHARES[kind]), honest=honest)
            loss = _loss(model, tokenizer, scenes, conversations, kind)
            (WEIGHTS[kind] * loss).backward()
            losses[kind] = loss.item()
        descent.update()
        yield step, losses, model
    model.eval()
