"""One case of benchmarks/memory.py: builds the model, does a stage's work, prints computed and measured bytes as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from benchmarks.gpu_measures import Memory
from benchmarks.memory import Case
from benchmarks.search_cases import DEMO
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.memory.facts import Phase, StagePeak
from tasks.core.memory.forward import PROMPT_TOKENS, Decoding, Reading, decoding_phases, reading_phases
from tasks.core.memory.training import Training, training_phases, truncated
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.states import sentence_states
from tasks.core.models.value import ValueModel, ValueSpec
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.step_trainer import TrainingRun
from tasks.core.train.weights import Recipe
from tasks.core.value.fit import ValueFit
from tasks.core.value.td import transitions
from tasks.models.architectures import Facts, facts_of_config
from tasks.models.engine import whole_answers

import transformers as hf  # isort: skip  # after torchvision's operators, which the policy module declares

PATCH, PROMPT, LIMIT = 14, "Describe the following image.", 4096


def built(case: Case, device: str) -> Policy:
    """A LLaVA of the case's size with random float32 weights; tokenizer and chat template are the demo's."""
    demo = load_policy(DEMO, digest="demo").processor
    tok, hidden = demo.tokenizer, case.hidden
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(
            hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
            image_size=case.side, patch_size=PATCH,
        ),
        text_config=hf.LlamaConfig(
            vocab_size=len(tok), hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=case.layers,
            num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, max_position_embeddings=LIMIT,
            pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id,
        ),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=(case.side // PATCH) ** 2,
    )  # fmt: skip
    side = {"height": case.side, "width": case.side}
    images = hf.CLIPImageProcessor(size={"shortest_edge": case.side}, crop_size=side)
    processor = hf.LlavaProcessor(images, tok, PATCH, "default", demo.chat_template, num_additional_image_tokens=1)
    torch.manual_seed(0)
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    return Policy(model.to(device).eval().requires_grad_(False), processor, "random")


def pictures(case: Case) -> list[Image.Image]:
    """As many images as the case has, each of its own colour."""
    return [Image.new("RGB", (case.side, case.side), (i, 255 - i, 7 * i % 256)) for i in range(case.images)]


def words(policy: Policy, count: int) -> str:
    """A text of about as many tokens."""
    text = "There is a dog on the left. "
    return text * max(1, count // len(policy.tokenizer(text, add_special_tokens=False).input_ids))


def facts_of_policy(policy: Policy) -> Facts:
    """Its sizes."""
    return facts_of_config("llava", "benchmark", policy.model.config.to_dict(), {})


def decode(case: Case, policy: Policy) -> Callable[[Facts], list[Phase]]:
    """Whole answers of all images, all in flight."""
    scheduler = SearchScheduler(Decoder(policy), in_flight=case.images, top_p=1.0)
    jobs = [
        Job(i, lambda picture=picture: picture, PROMPT, whole_answers([1.0] * case.rows, case.tokens), ("memory", i))
        for i, picture in enumerate(pictures(case))
    ]
    list(scheduler.run(jobs))

    def computed(facts: Facts) -> list[Phase]:
        held = {"weights": facts.arch.parameters.total * 4.0}
        cost = facts.cost((case.side, case.side), None)
        phases = decoding_phases(facts.arch, cost, held, Decoding(case.images, case.rows, 0, case.tokens), 4)
        # All images are admitted at once here: nothing is read while others are decoded.
        return [phase for phase in phases if not phase.name.endswith("while others are decoded")]

    return computed


def states(case: Case, policy: Policy) -> Callable[[Facts], list[Phase]]:
    """The policy's states at the ends of answers' sentences, in one forward."""
    turns = [(picture, PROMPT) for picture in pictures(case)]
    answers = [words(policy, case.tokens)] * case.images
    sentence_states(policy, turns, answers, layer=-1, batch_size=case.images)

    def computed(facts: Facts) -> list[Phase]:
        held = {"weights": facts.arch.parameters.total * 4.0}
        cost = facts.cost((case.side, case.side), None)
        reading = Reading(case.images, cost.tokens + PROMPT_TOKENS + case.tokens, cached=False)
        return reading_phases(facts.arch, cost, held, reading, 4)

    return computed


def sft(case: Case, policy: Policy) -> Callable[[Facts], list[Phase]]:
    """Two steps of supervised fine-tuning, each one forward."""
    examples = [Example(picture, PROMPT, words(policy, case.tokens)) for picture in pictures(case)]
    recipe = Recipe(case.train, 1e-4, 2.0, case.images, 0.0, 16, 1000, 0, micro_batch_size=case.images)
    facts = facts_of_policy(policy)  # training replaces modules
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(recipe, Path(folder), lambda step, loss: None, recompute=case.checkpointed)
        train_sft(policy, examples, run)

    def computed(given: Facts) -> list[Phase]:
        cost = facts.cost((case.side, case.side), None)
        training = Training(case.train, 16, case.images, case.tokens, 4, checkpointed=case.checkpointed)
        copies = facts.arch.parameters.learning * 4.0 * (case.train == "full")
        held = {"copies on the host": copies} if policy.device.type == "cpu" else {}
        return training_phases(facts.arch, cost, held, training)

    return computed


def value(case: Case, policy: Policy) -> Callable[[Facts], list[Phase]]:
    """Two steps of TD(0), each one forward with gradients."""
    facts = facts_of_policy(policy)
    model, images = ValueModel(policy, ValueSpec("random", case.train, -1, "sentence")), pictures(case)
    fit = ValueFit(
        value=lambda pairs: model([images[image] for image, _ in pairs], [text for _, text in pairs]),
        parameters=model.parameters(), gamma=0.9, mode="mean_to_go", lr=1e-4, target_decay=0.95,
    )  # fmt: skip
    sentence = words(policy, case.tokens)
    data = transitions(
        [(i, [sentence, sentence], [0.1, 0.2]) for i in range(case.images)], state="sentence", mode="mean_to_go"
    )
    for _ in range(2):
        fit.step(data[: case.images])

    def computed(given: Facts) -> list[Phase]:
        arch, cost = truncated(facts.arch, -1), facts.cost((case.side, case.side), None)
        training = Training(
            case.train, 16, case.images, case.tokens, 4, logits=False, target=True, checkpointed=case.checkpointed
        )
        return training_phases(arch, cost, {"language head": facts.arch.parameters.head * 4.0}, training)

    return computed


WORK = {"decode": decode, "states": states, "sft": sft, "value": value}


def main() -> None:
    """Warm up on a tiny model, take the baseline, measure."""
    case, device = Case(**json.loads(sys.argv[1])), sys.argv[2]
    torch.set_num_threads(1)
    tiny = Case(**{**json.loads(sys.argv[1]), "hidden": 64, "layers": 2, "side": 56, "images": 2, "tokens": 16})
    WORK[case.work](tiny, built(tiny, device))
    memory = Memory(device)
    memory.restart()
    policy = built(case, device)
    computed = WORK[case.work](case, policy)
    measured = memory.peak()
    peak = StagePeak(
        case.work, tuple(computed(facts_of_policy(policy) if case.work in ("decode", "states") else None))
    ).peak  # type: ignore[arg-type]
    print(json.dumps({"computed": peak.bytes, "measured": measured, "phase": peak.name, "terms": peak.terms}))


if __name__ == "__main__":
    main()
