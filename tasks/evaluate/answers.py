"""Stage 7 for questions, evaluate_answers: how many answers are right. Of a staged answer the conclusion alone counts.

LLaVA-CoT's figures move by several points with what is compared (its issues 18, 29 and 39): here a plain answer and the
conclusion of a staged one are judged by one rule, that of `tasks.core.data.questions.is_right`.
"""

from __future__ import annotations

import json

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Metric, Sample, Score
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.benchmarks.answers import BENCHMARK, AnswerItem, answer_ratios
from tasks.core.benchmarks.estimates import Intervals, Source, metric_rows
from tasks.core.data.questions import is_right
from tasks.core.staged.answers import form_problem, stated, without_tags
from tasks.core.text import words
from tasks.evaluate.evaluate import EvaluateResult
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.stage import stage


@stage(reads_annotations=True)
def evaluate_answers(
    config: EvaluateConfig,
    captions: Table[Caption],
    samples: Table[Sample],
    answers: Table[Answer],
    *,
    subject: str,
    decoding: str,
) -> EvaluateResult:
    """Accuracy of one subject; its scores are `right` and `staged` of each question.

    Args:
        config: how intervals are made.
        captions: one answer a sample.
        samples: the questions.
        answers: their true answers.
        subject: whose answers they are: base, round-1 ...
        decoding: greedy (without the instruction), staged (with it), or a search strategy.

    Raises:
        StageInputError: a question has no answer, given or true.
    """
    truth = {row.sample_id: row for row in lake.read_rows(Answer, answers)}
    rows = lake.read_rows(Caption, captions)
    check_nothing_lost("evaluate_answers", samples.rows or 0, len(rows), 0, 0.0, unit="questions")
    if missing := sum(row.sample_id not in truth for row in rows):
        raise StageInputError(f"{missing} of {len(rows)} questions have no true answer; see the answers table")
    scores, items = [], []
    for row in rows:
        known = truth[row.sample_id]
        item = AnswerItem(
            right=is_right(row.text, known.answer),
            staged=form_problem(row.text) is None,
            kind=known.kind,
            words=len(words(without_tags(row.text))),
        )
        items.append(item)
        detail = {
            "text": row.text,
            "said": stated(row.text),
            "answer": known.answer,
            "kind": item.kind,
            "words": item.words,
        }
        for metric, value, extra in (("right", item.right, json.dumps(detail)), ("staged", item.staged, None)):
            scores.append(Score(subject, decoding, BENCHMARK, row.sample_id, metric, float(value), extra))
    intervals = Intervals(config.bootstrap, config.confidence)
    metrics = metric_rows(answer_ratios(items), Source(subject, decoding, BENCHMARK), intervals)
    return EvaluateResult(
        scores=lake.publish(Score, scores),
        metrics=lake.publish(Metric, metrics),
        figures={metric.metric: metric.value for metric in metrics},
    )
