"""Row types: what one row of each table is, once. A leaf: anyone may import it, it imports nothing of ours.

A row type is a frozen dataclass whose fields carry their meaning (`Annotated[type, "what, unit, what None means"]`);
the Arrow schema is derived from it, so the two cannot disagree. `docs/tables.md` is generated from the same place.
Names and columns are a public contract: a change that is not an added nullable column raises `version`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, ClassVar

import pyarrow as pa

ROW_TYPES: dict[str, type[Row]] = {}


class Row:
    """Base of all row types; subclasses register themselves under `table`."""

    table: ClassVar[str]
    version: ClassVar[int] = 1
    primary_key: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Register the row type under its table's name."""
        ROW_TYPES[cls.table] = cls


Json = Annotated[str, "JSON text"]
Encoded = bytes  # a name of its own: a field called `bytes` hides the type


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFile:
    """An encoded image, laid out as Hugging Face's `Image` feature stores it."""

    bytes: Encoded | None
    path: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """One annotated object of an image, in pixels from the top left corner."""

    category: str
    x: float
    y: float
    w: float
    h: float


@dataclasses.dataclass(frozen=True)
class Image(Row):
    """An image that a run drew from its source."""

    table = "images"
    primary_key = ("image_id",)

    image_id: Annotated[str, "unique within a source: COCO's id, or the path under the folder"]
    image: Annotated[ImageFile, "the file as it was, not re-encoded (Hugging Face `Image` layout)"]
    width: Annotated[int, "pixels"]
    height: Annotated[int, "pixels"]
    sha256: Annotated[str, "of the file's bytes"]
    source: Annotated[str, "where it came from: the name of the data source and its split"]
    split: Annotated[str, "train, val (held out of value training) or test (benchmark)"]


@dataclasses.dataclass(frozen=True)
class Annotation(Row):
    """What is truly in an image. Read by evaluation only."""

    table = "annotations"
    primary_key = ("image_id",)

    image_id: Annotated[str, "see images"]
    objects: Annotated[list[str], "COCO category names of the instances, unique, sorted"]
    captions: Annotated[list[str], "reference captions, empty if the source has none"]
    boxes: Annotated[list[Box], "one per instance"]


@dataclasses.dataclass(frozen=True)
class Sample(Row):
    """An image with the prompt it is described under."""

    table = "samples"
    primary_key = ("sample_id",)

    sample_id: Annotated[str, "digest of image and prompt: the same in every run"]
    image_id: Annotated[str, "see images"]
    prompt: Annotated[str, "drawn by seed from the prompt pool; for task answers the question"]
    split: Annotated[str, "train, val or test"]
    follows: Annotated[
        str | None, "sample_id of the turn before in the same conversation; None: the first turn, or a prompt by itself"
    ] = None


@dataclasses.dataclass(frozen=True)
class Rollout(Row):
    """One sampled answer."""

    table = "rollouts"
    primary_key = ("rollout_id",)

    rollout_id: Annotated[str, "sample_id and decode"]
    sample_id: Annotated[str, "see samples"]
    policy: Annotated[str, "digest of the policy's checkpoint"]
    decode: Annotated[str, "greedy, or t0.6 (temperature), t0.6-2 for a second draw of one temperature"]
    temperature: Annotated[float, "0 for greedy"]
    top_p: Annotated[float, "nucleus mass kept; 1 keeps all"]
    seed: Annotated[int, "run seed the draws derive from"]
    text: Annotated[str, "the answer, without special tokens"]
    n_tokens: Annotated[int, "generated tokens, end of sequence included"]
    finish_reason: Annotated[str, "stop (the model ended) or length (the token limit)"]


@dataclasses.dataclass(frozen=True)
class Reward(Row):
    """One sentence of a rollout with its reward."""

    table = "rewards"
    primary_key = ("rollout_id", "step")

    rollout_id: Annotated[str, "see rollouts"]
    sample_id: Annotated[str, "see samples"]
    step: Annotated[int, "0-based index of the sentence"]
    sentence: Annotated[str, "stripped text"]
    start: Annotated[int, "offset of its first character in the rollout's text"]
    end: Annotated[int, "offset after its last character"]
    is_last: Annotated[bool, "the rollout's last sentence: the terminal state"]
    score: Annotated[
        float | None, "the reward: by default the cosine of image and sentence; None: not scored, see reason"
    ]
    shaped: Annotated[float | None, "score after the margin rule (ViMaR 3.1); None where score is"]
    scorer: Annotated[str, "digest of the scorer's checkpoint"]
    truncated: Annotated[bool, "the scorer's context was shorter than the sentence"]
    reason: Annotated[str | None, "why there is no score; None where there is one"]


@dataclasses.dataclass(frozen=True)
class Value(Row):
    """One held-out sentence with the estimate of the value model."""

    table = "values"
    version = 2
    primary_key = ("rollout_id", "step")

    rollout_id: Annotated[str, "see rollouts"]
    step: Annotated[int, "0-based index of the sentence"]
    reward: Annotated[float, "shaped reward of this sentence"]
    value: Annotated[float, "V of this sentence, on the scale of the terminal mode"]
    td_target: Annotated[float, "what TD(0) regresses on, with the final network's bootstrap"]
    mc_return: Annotated[float, "discounted Monte-Carlo return from here, same scale"]
    image_id: Annotated[str, "see images"]
    state: Annotated[
        str, "digest of what V read beside the image; sentences of an image that have the same are one to V"
    ]
    gamma: Annotated[float, "V's discount: a run that measures controls has a second V, of gamma 0"]


@dataclasses.dataclass(frozen=True)
class SearchStep(Row):
    """One candidate of one step of a search."""

    table = "search_trace"
    primary_key = ("sample_id", "strategy", "step", "candidate")

    sample_id: Annotated[str, "see samples"]
    strategy: Annotated[str, "its name, as visvm; docs/strategies.md"]
    step: Annotated[int, "0-based sentence index (whole answers: 0)"]
    candidate: Annotated[int, "0-based index in the step"]
    temperature: Annotated[float, "0 for greedy"]
    text: Annotated[str, "the candidate; empty if it ended at once"]
    score: Annotated[float | None, "the reward, as in rewards; None: not scored"]
    shaped: Annotated[float | None, "score after the margin rule; None: not scored"]
    value: Annotated[float | None, "value model's estimate; None: not asked"]
    chosen: Annotated[bool, "kept as the caption's next part"]
    ended: Annotated[bool, "the policy ended its answer after this candidate"]
    stop: Annotated[str | None, "on the last row of a caption: why the search stopped"]
    phase: Annotated[
        str | None, "which part of the search, where it has several: answers, refine, append, SUMMARY ..."
    ] = None


@dataclasses.dataclass(frozen=True)
class Caption(Row):
    """A searched answer."""

    table = "captions"
    primary_key = ("sample_id", "policy", "strategy")

    sample_id: Annotated[str, "see samples"]
    image_id: Annotated[str, "see images"]
    policy: Annotated[str, "digest of the policy's checkpoint"]
    strategy: Annotated[str, "its name, as visvm; docs/strategies.md"]
    text: Annotated[str, "the answer"]
    steps: Annotated[int, "sentences chosen (whole answers: 1)"]
    stop_reason: Annotated[
        str, "why it ended, as the strategy says: end, length, reward, vote, value, repeat, refined ..."
    ]
    candidates: Annotated[int, "candidates looked at"]
    decode_tokens: Annotated[int, "tokens sampled for this answer, all candidates"]


@dataclasses.dataclass(frozen=True)
class Score(Row):
    """One benchmark item."""

    table = "scores"
    primary_key = ("subject", "decoding", "benchmark", "item_id", "metric")

    subject: Annotated[str, "base, round-1, round-2 ..."]
    decoding: Annotated[str, "greedy or a search strategy"]
    benchmark: Annotated[str, "chair or vqa"]
    item_id: Annotated[str, "sample_id"]
    metric: Annotated[
        str, "chair: hallucinated, mentioned, recalled, present, words of one caption; vqa: right, staged"
    ]
    value: Annotated[float, "the count"]
    detail: Annotated[str | None, "JSON: which words, at which offsets"]


@dataclasses.dataclass(frozen=True)
class Metric(Row):
    """One aggregate with its bootstrap interval."""

    table = "metrics"
    primary_key = ("subject", "decoding", "benchmark", "metric")

    subject: Annotated[str, "base, round-1, round-2 ..."]
    decoding: Annotated[str, "greedy or a search strategy; rollouts for health metrics"]
    benchmark: Annotated[str, "chair, vqa, drift or health"]
    metric: Annotated[str, "chair_s, chair_i, recall (shares), length (words); accuracy (share); scorer_auc (share)"]
    value: Annotated[float, "the estimate"]
    stderr: Annotated[float, "bootstrap standard error; NaN below two items"]
    ci_low: Annotated[float, "lower end of the 95 % bootstrap interval"]
    ci_high: Annotated[float, "upper end"]
    n: Annotated[int, "items"]


@dataclasses.dataclass(frozen=True)
class Comparison(Row):
    """One paired difference, a minus b, on the same items."""

    table = "comparisons"
    primary_key = ("subject_a", "decoding_a", "subject_b", "decoding_b", "benchmark", "metric")

    subject_a: Annotated[str, "base, round-1, round-2 ..."]
    decoding_a: Annotated[str, "greedy or a search strategy"]
    subject_b: Annotated[str, "what a is compared with"]
    decoding_b: Annotated[str, "greedy or a search strategy"]
    benchmark: Annotated[str, "chair"]
    metric: Annotated[str, "chair_s, chair_i, recall, length"]
    diff: Annotated[float, "value of a minus value of b"]
    ci_low: Annotated[float, "lower end of the 95 % paired bootstrap interval"]
    ci_high: Annotated[float, "upper end"]
    p: Annotated[float, "two-sided bootstrap p-value of no difference"]
    n: Annotated[int, "items both have"]
    stderr: Annotated[float | None, "paired bootstrap standard error; NaN below two items, None: not stored"] = None


@dataclasses.dataclass(frozen=True)
class Decision(Row):
    """What the promotion gate decided."""

    table = "decisions"
    primary_key = ("candidate",)

    candidate: Annotated[str, "round-1, round-2 ..."]
    champion: Annotated[str, "what it was compared with"]
    promoted: Annotated[bool, "the candidate is the new champion"]
    reason: Annotated[str, "the intervals that decided, in words"]


@dataclasses.dataclass(frozen=True)
class Answer(Row):
    """The true answer of a question. Read by evaluation and by the verification gate only."""

    table = "answers"
    primary_key = ("sample_id",)

    sample_id: Annotated[str, "see samples, whose prompt is the question"]
    answer: Annotated[str, "a short answer"]
    kind: Annotated[str, "of question: what, how_many, where; or file"]


@dataclasses.dataclass(frozen=True)
class Verdict(Row):
    """What the verification gate decided about one staged answer (LLaVA-CoT section 3.1)."""

    table = "verdicts"
    primary_key = ("sample_id", "attempt")

    sample_id: Annotated[str, "see samples"]
    attempt: Annotated[int, "0-based"]
    text: Annotated[str, "the whole answer"]
    conclusion: Annotated[str, "its last stage; empty if it has none"]
    accepted: Annotated[bool, "it is learned"]
    reason: Annotated[
        str, "accepted, or why not: no_answer, not_tagged, incomplete, wrong, disagrees, no_majority, judge"
    ]


@dataclasses.dataclass(frozen=True)
class Preference(Row):
    """Two answers to one prompt, the better one first."""

    table = "preferences"
    primary_key = ("sample_id",)

    sample_id: Annotated[str, "see samples"]
    image_id: Annotated[str, "see images"]
    chosen: Annotated[str, "rollout_id of the best answer"]
    rejected: Annotated[str, "rollout_id of the worst"]
    chosen_text: Annotated[str, "the best answer"]
    rejected_text: Annotated[str, "the worst answer"]
    chosen_worth: Annotated[float, "mean value or reward of its sentences"]
    rejected_worth: Annotated[float, "the same of the worst"]


@dataclasses.dataclass(frozen=True)
class SentencePair(Row):
    """Two next sentences after one and the same answer so far, the true one first (SENTINEL)."""

    table = "sentence_pairs"
    primary_key = ("sample_id", "strategy", "step", "pair")

    sample_id: Annotated[str, "see samples"]
    image_id: Annotated[str, "see images"]
    strategy: Annotated[str, "of the search whose candidates they are"]
    step: Annotated[int, "see search_trace"]
    pair: Annotated[int, "0-based index in the step"]
    prefix: Annotated[str, "the answer so far; empty before its first sentence"]
    space: Annotated[str, "white space between it and the sentences"]
    chosen: Annotated[int, "candidate that is called true, see search_trace"]
    rejected: Annotated[int, "candidate that is called hallucinated"]
    chosen_text: Annotated[str, "the true sentence"]
    rejected_text: Annotated[str, "the hallucinated sentence"]


@dataclasses.dataclass(frozen=True)
class TokenScore(Row):
    """One object word of a rollout, or one sentence that names objects, with its reward (FiSAO)."""

    table = "token_scores"
    primary_key = ("rollout_id", "start")

    rollout_id: Annotated[str, "see rollouts"]
    start: Annotated[int, "offset of the word's first character in the rollout's text"]
    end: Annotated[int, "offset after its last character"]
    word: Annotated[str, "the word as it was written, or the sentence"]
    object: Annotated[str, "COCO's name of it; of a sentence all that it names, separated by a comma and a blank"]
    score: Annotated[float, "cosine of image and word, or image and sentence"]
    reward: Annotated[float | None, "after the margins; None: scored, not yet rewarded"]


@dataclasses.dataclass(frozen=True)
class Detection(Row):
    """An object that a detector found in an image."""

    table = "detections"
    primary_key = ("image_id", "object")

    image_id: Annotated[str, "see images"]
    object: Annotated[str, "COCO's name of it"]
    confidence: Annotated[float, "larger: surer"]


@dataclasses.dataclass(frozen=True)
class Agreement(Row):
    """How alike two rewards order the same sentences."""

    table = "reward_agreement"
    primary_key = ("reward_a", "reward_b", "scope")

    reward_a: Annotated[str, "kind and name of a reward"]
    reward_b: Annotated[str, "of another"]
    scope: Annotated[str, "pooled: over all sentences; within_image: mean over images"]
    spearman: Annotated[float, "rank correlation"]
    n: Annotated[int, "sentences, or images"]


@dataclasses.dataclass(frozen=True)
class SheetPair(Row):
    """The key of one pair of a blinded sheet: whose caption stood on which side."""

    table = "sheet_pairs"
    primary_key = ("pair",)

    pair: Annotated[int, "its number in the sheet, from 1"]
    sample_id: Annotated[str, "see samples"]
    image_id: Annotated[str, "see images"]
    left: Annotated[str, "who wrote the left caption"]
    right: Annotated[str, "who wrote the right one"]
    left_text: Annotated[str, "the left caption"]
    right_text: Annotated[str, "the right one"]


@dataclasses.dataclass(frozen=True)
class Finding(Row):
    """One figure of an experiment."""

    table = "findings"
    primary_key = ("experiment", "arm", "seed", "metric")

    experiment: Annotated[str, "its name, as gamma-sweep"]
    arm: Annotated[str, "what was done, as gamma=0.9"]
    x: Annotated[float | None, "the swept number, if it is one"]
    seed: Annotated[int, "the run's seed"]
    metric: Annotated[str, "what was measured"]
    value: Annotated[float, "the estimate"]
    ci_low: Annotated[float | None, "lower end of its 95 % interval; None: it has none"]
    ci_high: Annotated[float | None, "upper end"]
    n: Annotated[int, "items behind it"]
    stderr: Annotated[float | None, "its bootstrap standard error; None: it has none"] = None


@dataclasses.dataclass(frozen=True)
class Quarantined(Row):
    """A row that could not be processed, and why."""

    table = "quarantine"
    primary_key = ("stage", "item_id")

    stage: Annotated[str, "the stage that refused it"]
    item_id: Annotated[str, "image_id, sample_id or rollout_id"]
    reason: Annotated[str, "a short code: unreadable, too_small, too_large ..."]
    detail: Annotated[str, "what came, what was needed"]


@dataclasses.dataclass(frozen=True)
class StageRun(Row):
    """One stage (or shard of one) of one run."""

    table = "stages"
    primary_key = ("run_id", "round", "stage", "shard", "key")

    run_id: Annotated[str, "see runs"]
    round: Annotated[int, "0: before the first round"]
    stage: Annotated[str, "the stage's name"]
    label: Annotated[str, "what it worked on, for example the subject or the strategy; empty if there is one only"]
    shard: Annotated[int | None, "None: not sharded"]
    key: Annotated[str, "cache key"]
    digest: Annotated[str, "digest over the digests of its outputs"]
    outputs: Annotated[Json, "name -> reference"]
    cached: Annotated[bool, "nothing was computed"]
    started_at: Annotated[str, "ISO 8601, UTC"]
    seconds: Annotated[float, "wall seconds of this call; for a cached one, of looking it up"]
    rows: Annotated[int, "rows of all output tables"]
    counters: Annotated[Json, "work counted: tokens, forwards, encodes ..."]
    config: Annotated[Json, "semantic configuration"]
    code: Annotated[str, "digest of the code it uses"]


@dataclasses.dataclass(frozen=True)
class Run(Row):
    """One run of the loop."""

    table = "runs"
    primary_key = ("run_id",)

    run_id: Annotated[str, "time, profile and a random part"]
    profile: Annotated[str, "name of the profile"]
    status: Annotated[str, "running, completed, failed"]
    started_at: Annotated[str, "ISO 8601, UTC"]
    seconds: Annotated[float | None, "None while it runs"]
    rounds: Annotated[int, "rounds done"]
    champion: Annotated[str, "base, or the round whose model is kept"]
    message: Annotated[str, "why it ended"]
    config: Annotated[Json, "the whole profile as resolved"]


_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.large_binary(),
}


def _arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    """(Arrow type, nullable) of a type hint, `Annotated` already stripped."""
    if isinstance(hint, types.UnionType):
        (inner,) = [part for part in typing.get_args(hint) if part is not type(None)]
        return _arrow_type(inner)[0], True
    if typing.get_origin(hint) is Annotated:
        return _arrow_type(typing.get_args(hint)[0])
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        return pa.list_(_arrow_type(item)[0]), False
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return pa.struct([pa.field(n, *_arrow_type(h)) for n, h in hints.items()]), False
    return _ARROW[hint], False


def documented(row_type: type[Row]) -> dict[str, tuple[Any, str]]:
    """Field name -> (type hint, its meaning), in order."""
    hints = typing.get_type_hints(row_type, include_extras=True, localns={"Json": Json})
    fields = {}
    for field in dataclasses.fields(typing.cast(Any, row_type)):
        hint = hints[field.name]
        fields[field.name] = (typing.get_args(hint)[0], str(typing.get_args(hint)[-1]))
    return fields


def arrow_schema(row_type: type[Row]) -> pa.Schema:
    """The Arrow schema of a row type; table name, version and field meanings travel as metadata."""
    fields = []
    for name, (hint, meaning) in documented(row_type).items():
        kind, nullable = _arrow_type(hint)
        fields.append(pa.field(name, kind, nullable, metadata={"doc": meaning}))
    metadata = {"visloop.table": row_type.table, "visloop.version": str(row_type.version)}
    if row_type is Image:
        metadata["huggingface"] = '{"info": {"features": {"image": {"_type": "Image"}}}}'
    return pa.schema(fields, metadata=metadata)
