"""Bytes of training and decoding whose numbers are known."""

from __future__ import annotations

import pytest

from tasks.core.memory.facts import ImageCost, Phase, StagePeak
from tasks.core.memory.forward import Decoding, decoding_phases
from tasks.core.memory.training import Training, adapter_parameters, training_phases, truncated, weight_terms
from tasks.models.architectures import ArchitectureUnknown, facts_of, scorer_sizes, shipped

VICUNA = "llava-hf/llava-1.5-7b-hf"
NEXT = "llava-hf/llava-v1.6-mistral-7b-hf"
PUBLISHED = {  # billions of parameters, by the checkpoints' model cards
    NEXT: 7.57,
    VICUNA: 7.06,
    "meta-llama/Llama-3.2-11B-Vision-Instruct": 10.7,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3.75,
    "Qwen/Qwen3-VL-4B-Instruct": 4.44,
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": 0.507,
}


@pytest.mark.parametrize("checkpoint", sorted(PUBLISHED))
def test_shipped_sizes_make_the_published_number_of_parameters(checkpoint: str) -> None:
    assert checkpoint in shipped()
    assert facts_of(checkpoint).arch.parameters.total / 1e9 == pytest.approx(PUBLISHED[checkpoint], rel=0.005)


def test_a_token_of_vicunas_cache_takes_half_a_mebibyte() -> None:
    assert facts_of(VICUNA).arch.language.kv_bytes(2) == 2 * 32 * 4096 * 2
    assert facts_of(NEXT).arch.language.kv_bytes(2) == 2 * 32 * 8 * 128 * 2  # grouped queries: a quarter


def test_full_training_takes_sixteen_bytes_of_what_learns_and_two_of_what_does_not() -> None:
    arch = facts_of(NEXT).arch
    terms = weight_terms(arch, Training("full", 16, rows=1, answer=1, width=2))
    assert terms["learning weights"] + terms["gradients"] + terms["Adam's moments"] == 16 * arch.parameters.learning
    assert terms["frozen weights"] == 2 * arch.parameters.vision
    followed = weight_terms(arch, Training("full", 16, rows=1, answer=1, width=2, target=True))
    assert sum(followed.values()) - sum(terms.values()) == 4 * arch.parameters.learning


def test_adapters_have_a_row_and_a_column_of_every_linear_layer_for_each_rank() -> None:
    layer = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 2 * (4096 + 14336) + (14336 + 4096)
    assert adapter_parameters(facts_of(NEXT).arch, 16) == 16 * 32 * layer


def test_a_value_network_that_stops_in_the_middle_computes_half_the_layers() -> None:
    arch = facts_of(NEXT).arch
    half = truncated(arch, -17)
    assert half.language.layers == 16 and half.parameters.head == 0
    assert half.parameters.language == pytest.approx(arch.parameters.language / 2, rel=0.01)
    assert truncated(arch, -1).language == arch.language


def test_activations_follow_the_rows_and_the_weights_do_not() -> None:
    arch, cost = facts_of(NEXT).arch, facts_of(NEXT).cost((640, 480), None)
    small, large = (
        StagePeak("x", tuple(training_phases(arch, cost, {}, Training("lora", 16, rows, 256, 2)))).peak.terms
        for rows in (1, 4)
    )
    activations = ("checkpointed activations", "activations of a layer", "logits", "pixels")
    assert all(large[name] == 4 * small[name] for name in activations)
    assert all(large[name] == small[name] for name in small if name not in (*activations, "image features"))


def test_without_checkpoints_every_layer_keeps_its_activations() -> None:
    arch, cost = facts_of(NEXT).arch, facts_of(NEXT).cost((640, 480), None)
    kept, checkpointed = (
        StagePeak("x", tuple(training_phases(arch, cost, {}, Training("lora", 16, 1, 256, 2, checkpointed=on)))).bytes
        for on in (False, True)
    )
    assert kept - checkpointed > 12e9


def test_a_token_budget_bounds_the_buffer_and_nothing_else() -> None:
    arch, cost = facts_of(VICUNA).arch, ImageCost(576, 577, 1, 1)

    def peak(budget: int) -> Phase:
        phases = decoding_phases(arch, cost, {}, Decoding(16, 6, 0, 512, token_budget=budget), 2)
        return next(phase for phase in phases if phase.name == "answers are decoded")

    free, bound = peak(0).terms, peak(8192).terms
    assert bound["decode buffer"] < free["decode buffer"] / 2
    assert bound["prefixes"] == free["prefixes"] and bound["logits"] == free["logits"]


def test_what_is_not_known_is_refused_with_the_command_that_fetches_it() -> None:
    with pytest.raises(ArchitectureUnknown, match=r"hf download org/model config\.json"):
        facts_of("org/model")
    with pytest.raises(ArchitectureUnknown, match="scorer"):
        scorer_sizes("no-such-model/none")


def test_the_scorers_of_the_papers_have_their_parameters() -> None:
    assert scorer_sizes("ViT-L-14-336-quickgelu/openai").parameters == 427_944_193
