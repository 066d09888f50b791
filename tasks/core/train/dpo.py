"""Direct preference optimisation, on images (Rafailov et al., arXiv 2305.18290).

The loss is -log sigmoid(beta * (log-ratio of the chosen answer - log-ratio of the rejected one)); a log-ratio is the policy's
log-probability of the answer's tokens, its end included, less the reference's, which is the policy before training. The
reference's are read once, before the first step, and kept with the resume points: no second network is held.

A pair of next sentences after one and the same answer so far (SENTINEL's C-DPO, arXiv 2507.12455) is learned likewise, with the
log-probability of the sentence's tokens only: image, prompt and the answer so far are given, and no end token follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tasks.core.models.policy import Policy
from tasks.core.train.answers import Picture, Turn, answer_tokens
from tasks.core.train.step_trainer import StepTrainer, train
from tasks.core.train.steps import Objective, Row, TrainingRun, first_and_last


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt about one image, or two next sentences after the same beginning of an answer."""

    image: Picture
    prompt: str
    chosen: str
    rejected: str
    prefix: str | None = None  # the answer so far, "" before its first sentence; None: these are whole answers
    space: str = " "  # white space between the prefix and the sentences


def train_dpo(policy: Policy, pairs: Sequence[PreferencePair], run: TrainingRun, *, beta: float) -> dict[str, float]:
    """Train `policy.model` in place on preferences, from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        pairs: at least one.
        run: how and where; its batch size counts pairs.
        beta: strength of the reference; the smaller, the further the policy may go.

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change`, `untrainable` (pairs that the processor refuses),
        `micro_batch_size`, and of the first and the last tenth of the steps: `accuracy` (share of pairs whose chosen answer has
        the larger log-ratio), `margin` (beta times the difference of the log-ratios), `chosen` and `rejected`
        (log-probabilities of the answers).

    Raises:
        FinetuneError: if no pair can be read, no weight changed, weights are no longer numbers, or memory runs out.
    """
    known: dict[int, torch.Tensor] = {}  # item -> [2], of the reference

    def rows(items: Sequence[int], trainer: StepTrainer) -> list[Row]:
        if not known:
            known.update(_reference(policy, pairs, trainer, run.work / "reference.safetensors"))
        for item in items:
            if item not in known:
                trainer.refuse(item, "the reference could not read it")
        here = [item for item in items if item in known]
        return [replace(pair_row(policy, item, pairs[item]), reference=(known[item],)) for item in here]

    def loss(log_probs: torch.Tensor, part: Sequence[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return preference_loss(log_probs, part, beta)

    trainer, facts = train(policy, run, Objective(rows, loss, len(pairs), run.recipe.batch_size))
    return facts | first_and_last(trainer, "accuracy", "margin", "chosen", "rejected")


def pair_row(policy: Policy, item: int, pair: PreferencePair) -> Row:
    """A pair as tokens, the chosen answer first."""
    return Row(item, tuple(_turn(policy, pair, text) for text in (pair.chosen, pair.rejected)), weight=1.0)


def _turn(policy: Policy, pair: PreferencePair, text: str) -> Turn:
    """One of a pair's two texts; tokenised apart from the prefix, whose tokens are then the same for both."""
    if pair.prefix is None:
        return Turn(pair.image, pair.prompt, answer_tokens(policy, text))
    before = policy.answer_ids(pair.prefix)
    after = policy.continued_ids(text, space=pair.space) if before else policy.answer_ids(text)
    return Turn(pair.image, pair.prompt, (*before, *after), given=frozenset(range(len(before))))


def preference_loss(
    log_probs: torch.Tensor, rows: Sequence[Row], beta: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Summed over pairs; log-probabilities [2 * pairs, T], each pair's chosen answer first."""
    answers = log_probs.sum(dim=1).view(-1, 2)
    ratios = answers - torch.stack([row.reference[0] for row in rows]).to(answers)
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    figures = {"accuracy": (margin > 0).float(), "margin": margin, "chosen": answers[:, 0], "rejected": answers[:, 1]}
    return -torch.nn.functional.logsigmoid(margin).sum(), {name: value.sum() for name, value in figures.items()}


def _reference(
    policy: Policy, pairs: Sequence[PreferencePair], trainer: StepTrainer, path: Path
) -> dict[int, torch.Tensor]:
    """The reference's log-probabilities of both answers of every pair that can be read, from the file if it is there."""
    from safetensors.torch import load_file, save_file

    if path.is_file():
        saved = load_file(path)
        return dict(zip(saved["item"].tolist(), saved["log_probs"], strict=True))
    rows = trainer.with_reference([pair_row(policy, item, pair) for item, pair in enumerate(pairs)])
    known = {row.item: torch.stack([log_probs.sum() for log_probs in row.reference]) for row in rows}
    part = path.with_suffix(".part")
    items = torch.tensor(list(known), dtype=torch.int64)
    sums = torch.stack(list(known.values())) if known else torch.zeros(0, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"item": items, "log_probs": sums}, part)
    part.rename(path)
    return known
