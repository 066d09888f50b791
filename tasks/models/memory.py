"""The peak memory of every stage of a run: a profile's settings as the numbers that the formulas want.

The formulas are in tasks/core/memory and written out in docs/memory.md. Answers and captions count at their token limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.configs.policy import PolicyConfig
from tasks.configs.reward import CosineReward, ScorerConfig, TokenReward
from tasks.configs.rollout import RolloutConfig
from tasks.configs.search import SearchConfig
from tasks.configs.train import DpoConfig, FisaoConfig, GrpoConfig, SentinelConfig, SftConfig, TrainingSettings
from tasks.configs.value import ValueConfig
from tasks.core.memory.facts import BYTES, Phase, StagePeak
from tasks.core.memory.forward import PROMPT_TOKENS, Decoding, Reading, ScorerSizes, decoding_phases, reading_phases
from tasks.core.memory.images import Size, UnknownImageCost
from tasks.core.memory.training import Training, training_phases, truncated, weight_terms
from tasks.models.architectures import Facts, facts_of, scorer_sizes
from tasks.stage.runtime import RuntimeConfig

__all__ = ["MemorySettings", "StagePeak", "UnknownImageCost", "stage_peaks"]

USABLE = 10**9 / 2**30  # of a GPU's memory: 80 GB of a card of 80 GiB
STAGE_OF = {"sft": "finetune"} | {name: f"train_{name}" for name in ("dpo", "grpo", "fisao", "sentinel")}


@dataclass(frozen=True)
class MemorySettings:
    """What a run's memory depends on."""

    policy: PolicyConfig
    scorer: ScorerConfig
    rollout: RolloutConfig
    value: ValueConfig
    search: SearchConfig
    finetune: TrainingSettings
    runtime: RuntimeConfig
    needs: frozenset[str]  # of the run's searches and its training: value, scorer, margin, ...
    rollouts: bool  # whether the policy's own answers are drawn
    answers: bool  # the task: answers to questions instead of captions
    size: Size  # of the largest image


@dataclass(frozen=True)
class _Run:
    """The settings with the sizes of the models that they name."""

    settings: MemorySettings
    facts: Facts
    scorers: tuple[ScorerSizes, ...]

    @property
    def width(self) -> int:
        return BYTES[self.settings.policy.dtype]

    @property
    def training_width(self) -> int:
        """Bytes of a frozen weight while others learn: float32 where training doesn't run under autocast."""
        in_float32 = self.settings.policy.dtype == "float16" or self.settings.runtime.device == "cpu"
        return 4 if in_float32 else self.width

    @property
    def scorer_weights(self) -> dict[str, float]:
        """Scorers stay loaded once they were used."""
        return {"scorer weights": sum(sizes.weights for sizes in self.scorers)}

    @property
    def policy_weights(self) -> dict[str, float]:
        return {"policy weights": self.facts.arch.parameters.total * self.width, **self.scorer_weights}

    def cost(self) -> Any:
        """Of the largest image."""
        policy = self.settings.policy
        return self.facts.cost(self.settings.size, policy.max_pixels)


def stage_peaks(settings: MemorySettings) -> list[StagePeak]:
    """The peak of every stage that loads a model, in the order of a round.

    Raises:
        ArchitectureUnknown: the sizes of the policy or of a scorer are not known here.
        UnknownImageCost: nor how many tokens an image has.
    """
    run = _Run(settings, facts_of(settings.policy.checkpoint), _scorers(settings))
    peaks = [StagePeak("rollout", tuple(_rollout(run)))] if settings.rollouts else []
    if run.scorers:
        peaks.append(StagePeak("score", tuple(_score(run))))
    if "value" in settings.needs:
        peaks.append(StagePeak("train_value", tuple(_value(run))))
    if settings.search.strategy != "greedy":
        peaks.append(StagePeak("search", tuple(_search(run, settings.search))))
    peaks.append(StagePeak("search_greedy", tuple(_greedy(run))))  # of the benchmark, and of what is replayed
    peaks.append(StagePeak(STAGE_OF[method_of(settings.finetune)], tuple(_finetune(run))))
    return peaks


def method_of(config: TrainingSettings) -> str:
    """Its name."""
    return str(getattr(config, "method", "sft"))


def _scorers(settings: MemorySettings) -> tuple[ScorerSizes, ...]:
    """Those that are loaded: none where answers are found without scores."""
    config = settings.scorer
    if settings.answers and "scorer" not in settings.needs:
        return ()
    named = {config.checkpoint}
    for reward in config.rewards:
        if isinstance(reward, CosineReward | TokenReward) and reward.checkpoint:
            named.add(reward.checkpoint)
    return tuple(scorer_sizes(name) for name in sorted(named) if not name.startswith("plugin:"))


def _decoding(run: _Run, held: Mapping[str, float], rows: int, new: int, before: int = 0, kept: int = 0) -> list[Phase]:
    runtime = run.settings.runtime
    decoding = Decoding(runtime.batch_size, rows, before, new, kept, runtime.token_budget)
    return decoding_phases(run.facts.arch, run.cost(), dict(held), decoding, run.width)


def _rollout(run: _Run) -> list[Phase]:
    config = run.settings.rollout
    return _decoding(run, run.policy_weights, config.greedy + len(config.temperatures), config.max_new_tokens)


def _score(run: _Run) -> list[Phase]:
    return [phase for sizes in run.scorers for phase in sizes.phases(run.policy_weights)]


def _greedy(run: _Run) -> list[Phase]:
    return _decoding(run, run.policy_weights, 1, run.settings.search.max_new_tokens)


def _search(run: _Run, config: SearchConfig) -> list[Phase]:
    options: Mapping[str, Any] = config.options
    whole, sentence = config.max_new_tokens, config.max_sentence_tokens
    rows = config.candidates
    held: dict[str, float] = {**run.policy_weights, **_value_beside(run, rows)}
    if config.strategy in ("greedy", "sample"):
        return _decoding(run, held, 1, whole)
    if config.strategy in ("best_of_n", "majority_vote"):
        return _decoding(run, held, rows, whole)
    if config.strategy == "vimar":
        rows = int(options.get("answers", 0)) or rows
        return _decoding(run, held, rows, whole, kept=rows * whole)
    if config.strategy == "stage_beam":
        return _decoding(run, held, int(options.get("width", 2)), whole, before=3 * whole)
    if config.strategy == "swires":
        rows = int(options.get("captions", 4))
        rounds = int(options.get("rounds", 3))
        return _decoding(run, held, rows, whole, before=3 * whole, kept=2 * rows * rounds * whole)
    # Guided sentence by sentence; strategies of installed packages are taken for such.
    before = config.max_sentences * sentence
    return _decoding(run, held, rows, sentence, before=before, kept=rows * sentence)


def _value_beside(run: _Run, rows: int) -> dict[str, float]:
    """A value network of its own beside a search: its weights, and for every image in flight a prefix, the buffer that
    texts are read in, and their activations.
    """
    settings = run.settings
    if "value" not in settings.needs or settings.value.reads != "image_and_text":
        return {}
    arch, cost, count = run.facts.arch, run.cost(), settings.runtime.batch_size
    texts = rows * settings.search.max_sentence_tokens
    tokens = cost.tokens + PROMPT_TOKENS
    cache = arch.language.kv_bytes(run.width) * count
    return {
        "value network": truncated(arch, settings.value.layer).parameters.total * run.width,
        "value network's prefixes": cache * (2 * tokens + texts),
    }


def _value(run: _Run) -> list[Phase]:
    settings, value, cost = run.settings, run.settings.value, run.cost()
    if value.reads == "policy_states":
        return _states(run)
    arch = truncated(run.facts.arch, value.layer)
    text = settings.search.max_sentence_tokens * (settings.search.max_sentences if value.state == "prefix" else 1)
    training = Training(
        value.train,
        value.lora_rank,
        _micro(value.micro_batch_size, value.batch_size),
        text,
        run.width if value.train == "frozen" else run.training_width,
        layer=value.layer,
        logits=False,
        target=value.target != "mc" and not value.published,
        checkpointed=settings.runtime.device != "cpu",
        foreach=True,
    )
    return training_phases(arch, cost, run.scorer_weights, training)


def _states(run: _Run) -> list[Phase]:
    """The policy reads the answers. The head learns on states that stay on the host, a batch at a time."""
    settings, arch, cost = run.settings, run.facts.arch, run.cost()
    tokens = cost.tokens + PROMPT_TOKENS + settings.rollout.max_new_tokens
    count = settings.runtime.batch_size
    held = run.policy_weights
    if settings.value.layer != -1:
        held["states of all layers"] = count * tokens * arch.language.hidden * arch.language.layers * run.width
    return reading_phases(arch, cost, held, Reading(count, tokens, cached=False), run.width)


def _micro(size: int | None, batch: int) -> int:
    """Rows of one forward with gradients; found automatically, it can be as small as 1."""
    return min(size or 1, batch)


def _finetune(run: _Run) -> list[Phase]:
    settings, config = run.settings, run.settings.finetune
    rows = _micro(config.micro_batch_size, config.batch_size)
    training = Training(
        config.train,
        config.lora_rank,
        rows * (2 if isinstance(config, DpoConfig | SentinelConfig) else 1),
        answer_limit(settings),
        run.training_width,
        checkpointed=settings.runtime.device != "cpu",
        foreach=isinstance(config, FisaoConfig),
        learned=settings.search.max_sentence_tokens if isinstance(config, SentinelConfig) else None,
    )
    held, arch, cost = run.scorer_weights, run.facts.arch, run.cost()
    phases = training_phases(arch, cost, held, training)
    drawing = {**held, **weight_terms(arch, training)}
    if isinstance(config, GrpoConfig):
        groups = min(settings.runtime.batch_size, max(1, config.batch_size // config.grpo.generations))
        answers, limit = config.grpo.generations, config.grpo.max_new_tokens
        decoding = Decoding(groups, answers, 0, limit, answers * limit, settings.runtime.token_budget)
        phases += decoding_phases(arch, cost, drawing, decoding, run.width)
    if isinstance(config, FisaoConfig):
        per_image = settings.rollout.greedy + len(settings.rollout.temperatures)
        phases += _decoding(run, drawing, per_image, settings.rollout.max_new_tokens)
    return phases


def answer_limit(settings: MemorySettings) -> int:
    """Tokens of an answer that is trained on, at most."""
    config, search = settings.finetune, settings.search
    if isinstance(config, GrpoConfig):
        return config.grpo.max_new_tokens
    if not isinstance(config, SftConfig | SentinelConfig):
        return settings.rollout.max_new_tokens
    if search.strategy in ("visvm", "clip_prm"):
        return search.max_sentences * search.max_sentence_tokens
    return search.max_new_tokens * (4 if search.strategy in ("stage_beam", "swires") else 1)


def accelerator_bytes(device: str) -> int | None:
    """Total memory of a CUDA device less what the context and fragmentation take; None where there is no device."""
    import torch

    if not torch.cuda.is_available():
        return None
    total = torch.cuda.get_device_properties(0 if device == "auto" else device).total_memory
    return int(total * USABLE)
