"""Kinds of reward beside the cosine: each against what it is by definition, and none of them knows which job it scores for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.demo.scenes import sample_scenes
from tasks.core.models.cached_scorer import CachedScorer
from tasks.core.models.combined import Combined, Scale, weighted_sum
from tasks.core.models.judge_scores import QUESTION, JudgeError, judge_scores, read_rating
from tasks.core.models.likelihood import OwnLikelihood
from tasks.core.models.object_list import named_share, object_scores, pixel_digest
from tasks.core.models.policy import Policy, PolicyError
from tasks.core.models.positions import as_position_ids, prompt_positions
from tasks.core.models.scorer import cosines
from tasks.core.models.sentence_scores import Cosines
from tasks.core.models.token_clip import TokenCosines, phrase_of
from tests.support.tiny_models import ARCHITECTURES, tiny


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# objects


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("A dog.", 1.0),
        ("A dog and a puppy beside a cat.", 1 / 3),  # every mention counts
        ("A cat on a sofa.", -1.0),
        ("The sky is blue.", 0.0),
        ("", 0.0),
    ],
)
def test_what_is_there_counts_one_and_what_is_not_minus_one(text: str, share: float) -> None:
    assert named_share(text, frozenset(["dog", "pizza"])) == pytest.approx(share)


def test_an_image_is_known_by_its_pixels_and_size_not_by_its_file_or_name() -> None:
    image = noise(0)
    assert pixel_digest(image) == pixel_digest(image.convert("RGBA")) != pixel_digest(noise(1))
    flat = Image.new("RGB", (2, 8)), Image.new("RGB", (8, 2))
    assert flat[0].tobytes() == flat[1].tobytes() and pixel_digest(flat[0]) != pixel_digest(flat[1])


def test_objects_are_those_of_the_image_whatever_the_job_is_called() -> None:
    images, counters = [noise(0), noise(1), noise(2)], Counter()
    scores = object_scores(
        {pixel_digest(images[0]): frozenset(["dog"]), pixel_digest(images[1]): frozenset()}, counters
    )
    requests = ["A dog.", "A dog.", "A dog.", "Nothing."]
    assert scores.score(dict(enumerate(images)), list(zip([0, 1, 2, 2], requests, strict=True))) == [1, -1, -1, 0]
    assert scores.score({"b": images[1], "a": images[0]}, [("a", "A dog."), ("b", "A dog.")]) == [1, -1]
    assert counters == {"images_without_detections": 1, "texts_scored_objects": 6}
    scores.forget(2)
    scores.score({2: images[2]}, [(2, "A dog.")])
    assert counters["images_without_detections"] == 1  # the same image, counted once


# object words


def test_the_score_is_the_mean_cosine_of_the_sentence_s_object_words(scorer, pictures) -> None:
    counters: Counter[str] = Counter()
    scores = TokenCosines(Cosines(scorer, counters), counters)
    requests = [(0, "A dog and two Cats, and the dog again."), (1, "Blue sky."), (1, "A dog."), (0, "A dog.")]
    got = scores.score({0: pictures[0], 1: pictures[1]}, requests)

    def cosine(at: int, word: str) -> float:
        vectors = scorer.embed_images([pictures[at]]), scorer.embed_texts([f"a photo of a {word}."])
        return float(cosines(*vectors, [0])[0])

    want = [(2 * cosine(0, "dog") + cosine(0, "cats")) / 3, 0.0, cosine(1, "dog"), cosine(0, "dog")]
    assert got == pytest.approx(want, abs=1e-6) and want[2] != pytest.approx(want[3], abs=1e-3)
    assert scores.score({}, []) == [] and scores.score({1: pictures[1]}, [(1, "Blue sky.")]) == [0.0]
    scores.forget(0)
    assert scores.score({0: pictures[3]}, [(0, "A dog.")]) != [got[3]]
    assert counters["images_embedded"] == 3 and not scores.is_cut("dog " * 99)


def test_the_demo_scorer_separates_present_words_from_absent_ones(scorer, pictures) -> None:
    scores = TokenCosines(Cosines(scorer, Counter()), Counter())
    right = 0
    for picture, scene in zip(pictures, sample_scenes("core tests", 16), strict=True):
        other = "zebra" if "zebra" not in scene.categories else "toilet"
        there, absent = scores.score({0: picture}, [(0, f"A {scene.categories[0]}."), (0, f"A {other}.")])
        scores.forget(0)
        right += there > absent
    assert right >= 15
    assert phrase_of("Dogs") == "a photo of a dogs."


# sums


class Fixed:
    """Scores from a table."""

    def __init__(self, table: dict[str, float | None]) -> None:
        self.table, self.forgotten = table, []

    def score(self, images, pairs):
        return [self.table[text] for _, text in pairs]

    def forget(self, job) -> None:
        self.forgotten.append(job)

    def is_cut(self, text: str) -> bool:
        return text == "b"


def test_a_sum_is_the_one_worked_out_by_hand() -> None:
    first, second = Fixed({"a": 1.0, "b": 3.0, "c": None}), Fixed({"a": -5.0, "b": -1.0, "c": 2.0})
    scores = Combined([first, second], [Scale(2.0, 2.0, 0.5), Scale(-1.0, -3.0, 4.0)])
    # 2 (1 - 2) / .5 - (-5 + 3) / 4 and 2 (3 - 2) / .5 - (-1 + 3) / 4
    assert scores.score({}, [(0, "a"), (1, "b"), (0, "c"), (0, "a")]) == [-3.5, 3.5, None, -3.5]
    assert scores.score({}, []) == []
    assert scores.is_cut("b") and not scores.is_cut("a")
    scores.forget(7)
    assert first.forgotten == second.forgotten == [7]


def test_raw_scores_are_weighted_as_they_are() -> None:
    assert weighted_sum([[1.0, None], [10.0, 20.0]], [Scale(0.5), Scale(2.0)]) == [20.5, None]


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="want as many, of one length"):
        weighted_sum([[1.0], [1.0, 2.0]], [Scale(1.0), Scale(1.0)])
    with pytest.raises(ValueError, match="2 rewards and 1 scales"):
        Combined([Fixed({}), Fixed({})], [Scale(1.0)])


# judge


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("7", 0.7), (" 10\n", 1.0), ("0", 0.0), ("8.5", 0.85), ("8/10", 0.8), ("8 / 10.", 0.8), ("9.", 0.9),
        ("11", None), ("-1", None), ("Rating: 7", None), ("7 of 10", None), ("seven", None), ("", None), ("8/100", None),
    ],
)  # fmt: skip
def test_a_rating_is_a_number_from_0_to_10_and_nothing_else(answer: str, rating: float | None) -> None:
    assert read_rating(answer) == (None if rating is None else pytest.approx(rating))


def test_a_judge_gets_each_sentence_once_and_its_failures_are_counted() -> None:
    requests: list[tuple[Image.Image, str]] = []
    answers = {"A dog.": "9", "A cat.": "I think 3", "A cup.": None}

    def answer(questions: Sequence[tuple[Image.Image, str]]):
        requests.extend(questions)
        return [
            next(a for text, a in answers.items() if question == QUESTION.format(sentence=text))
            for _, question in questions
        ]

    counters, images = Counter(), {0: noise(0), 1: noise(1)}
    scores = judge_scores(answer, counters)
    wanted = [(0, "A dog."), (1, "A cup."), (0, "A cat."), (1, "A dog."), (0, "A dog.")]
    assert scores.score(images, wanted) == [0.9, None, None, 0.9, 0.9] == scores.score(images, wanted)
    assert [image for image, _ in requests] == [images[0], images[0], images[1], images[1]]
    assert counters == {"judge_rated": 2, "judge_unparsable": 1, "judge_refused": 1, "texts_scored_judge": 4}


@pytest.mark.parametrize(
    ("answer", "message"), [("It is fine.", "one answer was 'It is fine.'"), (None, "every request")]
)
def test_a_judge_that_rates_nothing_ends_the_run(answer: str | None, message: str) -> None:
    scores = judge_scores(lambda questions: [answer] * len(questions), Counter())
    assert scores.score({0: noise(0)}, [(0, str(i)) for i in range(7)]) == [None] * 7
    with pytest.raises(JudgeError, match=rf"rated none of 8 sentences; {message}"):
        scores.score({0: noise(0)}, [(0, "one more")])


# own likelihood

TEXTS = [
    "There is a dog on the left .",
    "We",
    "Is one bird here ?",
    "",
    "A man walks to his house with some bread . " * 3,
]
PROMPT = "Describe the image ."


def by_whole_forward(policy: Policy, image: Image.Image, text: str) -> float | None:
    """Prompt and text read at once, one log-probability a token: what the likelihood is by definition."""
    ids = policy.answer_ids(text)
    if not ids:
        return None
    inputs = policy.answered([image], [PROMPT], [ids])
    return _mean_of_tail(policy, inputs, as_position_ids(prompt_positions(policy.model, inputs)), ids)


def blind(policy: Policy, text: str) -> float | None:
    """The same behind the template's text alone, as `generate` would place it."""
    ids = policy.answer_ids(text)
    if not ids:
        return None
    turn = {"role": "user", "content": [{"type": "text", "text": PROMPT}]}
    written = policy.processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    before = policy.tokenizer(written, add_special_tokens=False).input_ids
    whole = torch.tensor([[*before, *ids]])
    inputs = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
    return _mean_of_tail(policy, inputs, None, ids)


@torch.inference_mode()
def _mean_of_tail(policy: Policy, inputs: dict, positions: torch.Tensor | None, ids: list[int]) -> float:
    logits = policy.model(**inputs, position_ids=positions, use_cache=False).logits[0, -len(ids) - 1 : -1]
    return float(logits.float().log_softmax(-1)[range(len(ids)), ids].mean())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_likelihood_is_that_of_one_whole_forward(name: str) -> None:
    policy, images = tiny(name), [noise(0, 56, 40), noise(1, 80, 80)]
    got = OwnLikelihood(policy, PROMPT, contrast=False)(images, [TEXTS, TEXTS[:2]])
    want = [[by_whole_forward(policy, image, text) for text in TEXTS] for image in images]
    assert got[0][3] is want[0][3] is None
    assert [x for x in got[0] if x is not None] == pytest.approx([x for x in want[0] if x is not None], abs=1e-4)
    assert got[1] == pytest.approx(want[1][:2], abs=1e-4)
    assert abs(got[0][0] - got[1][0]) > 1e-3  # the image matters


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_contrast_is_less_the_same_without_the_image(name: str) -> None:
    policy, image = tiny(name), noise(0, 56, 40)
    (seen,) = OwnLikelihood(policy, PROMPT, contrast=False)([image], [TEXTS])
    (contrasted,) = OwnLikelihood(policy, PROMPT, contrast=True)([image], [TEXTS])
    want = [None if item is None else item - blind(policy, text) for item, text in zip(seen, TEXTS, strict=True)]
    assert contrasted[3] is None
    assert [x for x in contrasted if x is not None] == pytest.approx([x for x in want if x is not None], abs=1e-4)


def test_a_likelihood_is_the_same_to_the_last_bit_whoever_is_beside_it() -> None:
    policy, images = tiny("llava"), [noise(0), noise(1)]
    rate = OwnLikelihood(policy, PROMPT, contrast=True)
    many = [*TEXTS, *(f"There is a dog {'and a cat ' * n}." for n in range(12))]
    together = rate(images, [many, many[::-1]])
    assert together[0][0] == OwnLikelihood(policy, PROMPT, contrast=True)([images[0]], [[many[0]]])[0][0]
    assert rate([images[1]], [many])[0] == together[1][::-1]


def test_a_policy_that_needs_an_image_says_how_to_do_without_the_contrast() -> None:
    policy = tiny("llava")

    class Processor:
        tokenizer = policy.tokenizer

        def apply_chat_template(self, chat, **options):
            if not any(part["type"] == "image" for turn in chat for part in turn.get("content", ())):
                raise ValueError("this template wants an image")

    rate = OwnLikelihood(Policy(policy.model, Processor(), "p"), PROMPT, contrast=True)
    with pytest.raises(
        PolicyError, match=r"without an image \(ValueError: this template wants an image\); set contrast: false"
    ):
        rate._without_image(["A dog ."])


def test_what_was_rated_is_not_rated_again_until_its_job_is_over() -> None:
    rated = []

    def rate(images, texts):
        rated.append([list(some) for some in texts])
        return [[float(len(text)) for text in some] for some in texts]

    counters: Counter[str] = Counter()
    scores = CachedScorer(rate, counters, "texts")
    images = {0: noise(0), "x": noise(1)}
    assert scores.score(images, [(0, "ab"), ("x", "a"), (0, "ab"), (0, "")]) == [2, 1, 2, 0]
    assert scores.score(images, [("x", "abc"), (0, "ab")]) == [3, 2]
    scores.forget(0)
    assert scores.score(images, [(0, "ab")]) == [2]
    assert rated == [[["ab", ""], ["a"]], [["abc"]], [["ab"]]] and counters == {"texts": 5}
