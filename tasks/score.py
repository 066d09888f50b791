"""The heavy half of stage 3: the scorer's cosine of every sentence of every rollout with its image.

In a file of its own, so that another reward formula does not ask the scorer again.
"""

from __future__ import annotations

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Quarantined, Reward, Rollout, Sample
from tasks.caching import WHOLE, Shard, check_nothing_lost, stage
from tasks.configs import RuntimeConfig
from tasks.core.text import split_sentences
from tasks.loading import load_images, load_scorer
from tasks.progress import progress


@stage(sharded_by="rollouts")
def score(
    scorer: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    rollouts: ArtifactRef,
    *,
    runtime: RuntimeConfig,
    shard: Shard = WHOLE,
    label: str = "",
) -> StageOutput:
    """Cosine of every sentence with its image, each image embedded once. Outputs: scored (rewards to be shaped), quarantine."""
    from tasks.core.models.scorer import cosines

    todo = shard.slice(lake.read_rows(Rollout, rollouts))
    image_of = {one.sample_id: one.image_id for one in lake.read_rows(Sample, samples)}
    model = load_scorer(scorer, runtime)
    said = [(rollout, split_sentences(rollout.text)) for rollout in todo]
    texts = sorted({sentence.text for _, sentences in said for sentence in sentences})
    ids = sorted({image_of[rollout.sample_id] for rollout in todo})
    with progress("score", len(ids) + len(texts), unit="embeddings") as advance:
        pictures = load_images(images, ids)
        image_vectors = model.embed_images([pictures[image_id] for image_id in ids])
        advance(len(ids))
        text_vectors = model.embed_texts(texts)
        advance(len(texts))
    image_at, text_at = {name: i for i, name in enumerate(ids)}, {text: i for i, text in enumerate(texts)}
    cut = {text for text in texts if model.is_cut(text)}
    rows: list[Reward] = []
    empty: list[Quarantined] = []
    for rollout, sentences in said:
        if not sentences:
            empty.append(Quarantined("score", rollout.rollout_id, "no_sentence", f"answer {rollout.text!r}"))
        values = cosines(
            image_vectors,
            text_vectors[[text_at[one.text] for one in sentences]],
            [image_at[image_of[rollout.sample_id]]] * len(sentences),
        )
        for step, (sentence, value) in enumerate(zip(sentences, values, strict=True)):
            rows.append(
                Reward(
                    rollout_id=rollout.rollout_id,
                    sample_id=rollout.sample_id,
                    step=step,
                    sentence=sentence.text,
                    start=sentence.start,
                    end=sentence.end,
                    is_last=step + 1 == len(sentences),
                    score=float(value),
                    shaped=None,
                    scorer=scorer.digest,
                    truncated=sentence.text in cut,
                    reason=None,
                )
            )
    check_nothing_lost("score", len(todo), len({row.rollout_id for row in rows}), len(empty), 0.5, unit="rollouts")
    return StageOutput(
        refs={"scored": lake.publish(Reward, rows), "quarantine": lake.publish(Quarantined, empty)},
        counters={
            "images_embedded": len(ids),
            "texts_embedded": len(texts),
            "sentences": len(rows),
            "truncated": len(cut),
        },
    )
