"""Two decoding methods that transformers no longer ships, as callables for `generate(custom_generate=...)`.

`generate` prepares inputs, cache and logits processors and then calls one of these instead of its own loop. Both read each
prompt once, copy its cache to as many rows as they need, and then feed one token per row and step. A finished prompt stays
in the batch until the last one is finished. Both return ids [N, L + T] as `generate` does: prompts, answers and padding.

Arguments that `generate` passes to both: `model`, what it was called on; `input_ids` [N, L], padded on the left; the
`logits_processor`; `stopping_criteria`, not used, since an answer ends at an end token or at the limit; `generation_config`,
of which eos_token_id (a list), pad_token_id, max_length and length_penalty are used; and the model's other inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


class BeamGroups(NamedTuple):
    """Settings of diverse beam search."""

    beams: int  # of all groups together, a multiple of `groups`
    groups: int  # 1 or more
    penalty: float  # 0 or more, in nats


class ContrastiveOptions(NamedTuple):
    """Settings of contrastive search."""

    candidates: int  # tokens to choose from, the paper's k
    alpha: float  # weight of the degeneration penalty in [0, 1]; 0 is greedy


class _Rows:
    """A model that is fed one token per row; the rows of a prompt lie side by side."""

    def __init__(
        self, model: Any, ids: torch.Tensor, model_inputs: dict[str, Any], copies: int, **outputs: Any
    ) -> None:
        """Read the prompts [N, L]; `read` is the model's output. `outputs` are passed to every forward."""
        self.model, self.outputs = model, outputs
        inputs = model.prepare_inputs_for_generation(ids, is_first_iteration=True, **model_inputs)
        self.read = model(**inputs, return_dict=True, **outputs)
        model_inputs = model._update_model_kwargs_for_generation(self.read, model_inputs)
        self.ids, self.model_inputs = model._expand_inputs_for_generation(
            input_ids=ids, expand_size=copies, **model_inputs
        )
        self._reorder(torch.arange(len(ids), device=ids.device).repeat_interleave(copies))

    def _reorder(self, rows: torch.Tensor) -> None:
        self.model_inputs["past_key_values"].reorder_cache(rows)

    def feed(self, tokens: torch.Tensor, after: torch.Tensor) -> Any:
        """The model's output for tokens [R], each appended to the row `after` [R] of the same prompt."""
        self.ids = torch.cat([self.ids[after], tokens[:, None]], dim=1)
        self._reorder(after)
        inputs = self.model.prepare_inputs_for_generation(self.ids, next_sequence_length=1, **self.model_inputs)
        out = self.model(**inputs, return_dict=True, **self.outputs)
        self.model_inputs = self.model._update_model_kwargs_for_generation(out, self.model_inputs)
        return out


@dataclass
class _Group:
    """One group of beams of one prompt: beam search by transformers' own rules."""

    size: int
    length_penalty: float
    tokens: list[list[int]] = field(init=False)  # of each beam
    scores: list[float] = field(init=False)  # sums of log-probabilities
    finished: list[tuple[float, list[int]]] = field(default_factory=list)  # at most `size`, best first
    active: bool = True

    def __post_init__(self) -> None:
        """All beams start equal, so only the first of them may be continued."""
        self.tokens = [[] for _ in range(self.size)]
        self.scores = [0.0] + [float("-inf")] * (self.size - 1)

    def take(
        self, candidates: Sequence[tuple[float, int, int]], ends: frozenset[int], *, last: bool
    ) -> list[tuple[int, int]]:
        """Choose among (score, beam, token), best first: (beam, token) of those to continue; none once the search is finished.

        A candidate that ends counts only among the first `size`; the others make sure that enough can be continued.
        """
        continued: list[tuple[float, int, int]] = []
        for rank, (score, beam, token) in enumerate(candidates):
            if token not in ends and not last:
                continued.append((score, beam, token))
            elif rank < self.size:
                answer = [*self.tokens[beam], token]
                self.finished.append((score / len(answer) ** self.length_penalty, answer))
        continued = continued[: self.size]
        self.finished = sorted(self.finished, key=lambda scored: -scored[0])[: self.size]
        self.tokens = [[*self.tokens[beam], token] for _, beam, token in continued]
        self.scores = [score for score, _, _ in continued]
        if last or (len(self.finished) == self.size and self._best_active() <= self.finished[-1][0]):
            self.active = False
            return []
        return [(beam, token) for _, beam, token in continued]

    def _best_active(self) -> float:
        return max(self.scores) / len(self.tokens[0]) ** self.length_penalty


def diverse_beam_search(
    model: Any,
    input_ids: torch.Tensor,
    *,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    beams: BeamGroups,
    **model_inputs: Any,
) -> torch.Tensor:
    """Diverse beam search (arXiv 1610.02424, algorithm 1, Hamming diversity); each prompt's likeliest answer of all groups.

    At each step the groups choose in turn. A token's log-probability is lowered by the penalty for every beam of an earlier
    group that continues with the same token at this step. As in the paper's formula this decides the choice only: the scores
    that are summed up and compared at the end are log-probabilities. One group is transformers' own beam search.

    The arguments are described in the module's docstring.
    """
    total, groups, penalty = beams
    count, size = len(input_ids), total // groups
    ends, limit = frozenset(generation_config.eos_token_id), generation_config.max_length - input_ids.shape[1]
    searches = [[_Group(size, generation_config.length_penalty) for _ in range(groups)] for _ in range(count)]
    rows = _Rows(model, input_ids, model_inputs, total)
    logits = rows.read.logits[:, -1].repeat_interleave(total, dim=0)
    for step in range(limit):
        log_probs = logits_processor(rows.ids, torch.log_softmax(logits.float(), dim=-1))
        fed = _choose(searches, log_probs.view(count, groups, size, -1), penalty, ends, last=step + 1 == limit)
        if not fed:
            break
        # The rows of a finished group stay in the batch; what they are fed doesn't matter.
        tokens, after = torch.zeros(count * total, dtype=torch.long), torch.arange(count * total)
        for row, (beam, token) in fed.items():
            after[row], tokens[row] = beam, token
        logits = rows.feed(tokens.to(input_ids.device), after.to(input_ids.device)).logits[:, -1]
    best = [max((s.finished[0] for s in of_prompt), key=lambda scored: scored[0])[1] for of_prompt in searches]
    return _padded(input_ids, best, generation_config.pad_token_id)


def _choose(
    searches: Sequence[Sequence[_Group]], log_probs: torch.Tensor, penalty: float, ends: frozenset[int], *, last: bool
) -> dict[int, tuple[int, int]]:
    """Let the groups choose in turn: continued row -> (its previous row, token); log_probs [N, groups, size, V]."""
    _, groups, size, _ = log_probs.shape
    fed: dict[int, tuple[int, int]] = {}
    chosen = torch.zeros_like(log_probs[:, 0, 0])  # [N, V] beams of earlier groups that continue with the token
    for group in range(groups):
        ranked = _candidates(
            [of_prompt[group] for of_prompt in searches], log_probs[:, group], penalty * chosen, len(ends)
        )
        for prompt, candidates in enumerate(ranked):
            search, first = searches[prompt][group], (prompt * groups + group) * size
            if not search.active:
                continue
            for row, (beam, token) in enumerate(search.take(candidates, ends, last=last), first):
                fed[row] = (first + beam, token)
                chosen[prompt, token] += 1
    return fed


def _candidates(
    searches: Sequence[_Group], log_probs: torch.Tensor, lowered: torch.Tensor, ends: int
) -> list[list[tuple[float, int, int]]]:
    """(score, beam, token) for each prompt, best first by score less `lowered` [N, V]; log_probs [N, size, V]."""
    size, vocabulary = log_probs.shape[1:]
    # A finished group may have no beams left; its candidates are ignored.
    before = torch.tensor([s.scores if s.active else [0.0] * size for s in searches], device=log_probs.device)
    scores = log_probs + before[:, :, None]
    # Every beam may end in `ends` ways, and `size` candidates must remain that don't end.
    flat = (scores - lowered[:, None]).flatten(1).topk(max(2, 1 + ends) * size, dim=1).indices
    top = scores.flatten(1).gather(1, flat).tolist()
    return [
        [(score, index // vocabulary, index % vocabulary) for score, index in zip(*of_prompt, strict=True)]
        for of_prompt in zip(top, flat.tolist(), strict=True)
    ]


def contrastive_search(
    model: Any,
    input_ids: torch.Tensor,
    *,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    options: ContrastiveOptions,
    **model_inputs: Any,
) -> torch.Tensor:
    """Contrastive search (arXiv 2202.06417, section 4.2): of the likeliest tokens the one that repeats the context least.

    A token's state is the model's last hidden state after reading it, so every candidate is read before one is chosen.
    The context is the whole prompt, image tokens included, and the answer so far.

    The arguments are described in the module's docstring.
    """
    candidates, alpha = options
    count, ends = len(input_ids), frozenset(generation_config.eos_token_id)
    mask = model_inputs.get("attention_mask")  # dropped by `generate` where nothing is padded
    mask = torch.ones_like(input_ids) if mask is None else mask
    rows = _Rows(model, input_ids, model_inputs, candidates, output_hidden_states=True)
    logits, seen = rows.read.logits[:, -1], _states(rows.read)
    prompts = torch.arange(count, device=input_ids.device)
    row = prompts * candidates  # [N] the row that holds the answer so far
    answers: list[list[int]] = [[] for _ in range(count)]
    for _ in range(generation_config.max_length - input_ids.shape[1]):
        scores = logits_processor(rows.ids[row], logits.float())
        tokens = scores.topk(candidates, dim=-1).indices
        probabilities = torch.softmax(scores, dim=-1).gather(1, tokens)
        out = rows.feed(tokens.flatten(), row.repeat_interleave(candidates))
        states = _states(out).view(count, candidates, -1)
        best = contrastive_scores(probabilities, states, seen, mask, alpha).argmax(dim=1)
        row = prompts * candidates + best
        logits = out.logits[row, -1]
        seen = torch.cat([seen, states[prompts, best][:, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        for answer, token in zip(answers, tokens[prompts, best].tolist(), strict=True):
            if not answer or answer[-1] not in ends:
                answer.append(token)
        if all(answer[-1] in ends for answer in answers):
            break
    return _padded(input_ids, answers, generation_config.pad_token_id)


def contrastive_scores(
    probabilities: torch.Tensor, states: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor, alpha: float
) -> torch.Tensor:
    """The paper's equation 5, [N, k]: (1 - alpha) * probability - alpha * largest cosine with a state seen before.

    Args:
        probabilities: [N, k] of the candidates.
        states: [N, k, D] of the candidates, of length 1.
        seen: [N, L, D] of the context, of length 1.
        mask: [N, L], 0 where the context is padding.
        alpha: in [0, 1].
    """
    cosines = (states @ seen.transpose(1, 2)).masked_fill(mask[:, None] == 0, -1.0)
    return (1 - alpha) * probabilities - alpha * cosines.amax(dim=-1)


def _states(out: Any) -> torch.Tensor:
    """The last hidden states [B, L, D], scaled to length 1."""
    return torch.nn.functional.normalize(out.hidden_states[-1].float(), dim=-1)


def _padded(input_ids: torch.Tensor, answers: Sequence[list[int]], pad: int) -> torch.Tensor:
    """Prompts [N, L] followed by their answers."""
    longest = max(len(answer) for answer in answers)
    filled = [answer + [pad] * (longest - len(answer)) for answer in answers]
    return torch.cat([input_ids, torch.tensor(filled, device=input_ids.device)], dim=1)
