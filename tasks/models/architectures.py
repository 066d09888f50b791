"""A model's sizes without its weights: from the configuration in its folder, or from one that ships with visloop.

The model is built on torch's meta device, which holds shapes and no numbers, and its parameters are counted by module. So
experts, adapters' targets and whatever an architecture adds are counted as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.core.memory.facts import Architecture, ImageCost, Language, Parameters, Vision
from tasks.core.memory.forward import ScorerSizes
from tasks.core.memory.images import Size, image_cost

SHIPPED = Path(__file__).resolve().parents[2] / "deployments" / "architectures"


class ArchitectureUnknown(ValueError):
    """A model whose sizes are neither in its folder nor shipped."""


class Facts:
    """A model's sizes, and what an image costs it."""

    def __init__(self, arch: Architecture, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> None:
        self.arch, self.config, self.preprocessor = arch, config, preprocessor

    def cost(self, size: Size, max_pixels: int | None) -> ImageCost:
        """What an image of this size costs, under the profile's bound on its pixels."""
        return image_cost(self.config, self.preprocessor, size, max_pixels)


def shipped() -> dict[str, Path]:
    """Files of sizes by the checkpoints that they describe."""
    files: dict[str, Path] = {}
    for path in sorted(SHIPPED.glob("*.json")):
        files |= {checkpoint: path for checkpoint in json.loads(path.read_text())["checkpoints"]}
    return files


def facts_of(checkpoint: str) -> Facts:
    """The sizes of a policy: a folder with a config.json, or a checkpoint whose sizes are shipped.

    Raises:
        ArchitectureUnknown: neither; or transformers can't build such a model.
    """
    folder = Path(checkpoint).expanduser()
    if (folder / "config.json").is_file():
        return _from_folder(folder, (folder / "config.json").stat().st_mtime_ns)
    name = checkpoint.partition("@")[0]
    if name in shipped():
        return _from_shipped(shipped()[name])
    raise ArchitectureUnknown(
        f"{checkpoint}: its sizes are not known here; fetch its configuration, which is a few kilobytes, with: "
        f"hf download {name} config.json preprocessor_config.json --local-dir DIR, and give DIR"
    )


@lru_cache(maxsize=16)
def _from_folder(folder: Path, changed: int) -> Facts:
    """`changed` is when, so that a file that was replaced is read again."""
    config = _json(folder / "config.json")
    processor = _json(folder / "processor_config.json").get("image_processor") or _json(
        folder / "preprocessor_config.json"
    )
    return facts_of_config(folder.name, str(folder / "config.json"), config, processor)


@lru_cache(maxsize=16)
def _from_shipped(path: Path) -> Facts:
    content = json.loads(path.read_text())
    return facts_of_config(
        path.stem, f"deployments/architectures/{path.name}", content["config"], content["preprocessor"]
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def facts_of_config(name: str, source: str, raw: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Facts:
    """The sizes of a model by its configuration's fields; `source` names where they come from.

    Raises:
        ArchitectureUnknown: transformers can't build such a model.
    """
    from tasks.core.models.meta import meta_model

    try:
        model = meta_model(raw)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, ImportError) as error:
        raise ArchitectureUnknown(f"{source}: transformers can't build this model ({error})") from error
    config = model.config
    text, vision = config.get_text_config(), config.vision_config
    arch = Architecture(name, source, _parameters(model), _language(model, text), _vision(config, vision))
    return Facts(arch, config.to_dict(), preprocessor)


def _parameters(model: Any) -> Parameters:
    """Parameters by what they belong to; a tied head shares the embedding's tensor and isn't counted twice."""
    from tasks.core.models.parts import language_model, towers

    head: Any = getattr(model.get_output_embeddings(), "weight", None)
    embedding: Any = model.get_input_embeddings().weight
    tied = any(
        getattr(config, "tie_word_embeddings", False) for config in (model.config, model.config.get_text_config())
    )
    language = {id(parameter) for parameter in language_model(model).parameters()}
    vision = {id(parameter) for tower in towers(model).values() for parameter in tower.parameters()}
    counts = dict.fromkeys(("language", "embedding", "head", "vision", "projector"), 0)
    parameter: Any
    for parameter in model.parameters():
        if parameter is embedding:
            counts["embedding"] += parameter.numel()
        elif head is not None and parameter is head:
            counts["head"] += 0 if tied else parameter.numel()
        elif id(parameter) in vision:
            counts["vision"] += parameter.numel()
        else:
            counts["language" if id(parameter) in language else "projector"] += parameter.numel()
    return Parameters(**counts)


def _language(model: Any, text: Any) -> Language:
    from tasks.core.models.parts import lora_targets

    targets = lora_targets(model)
    shapes = [model.get_submodule(name).weight.shape for name in targets.modules]
    width = sum(sum(shape) for shape in shapes)
    # Experts' weights in one tensor, [experts, rows, columns]: an adapter an expert.
    width += sum(
        shape[0] * sum(shape[1:]) for shape in (model.get_parameter(name).shape for name in targets.parameters)
    )
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    intermediate = text.intermediate_size
    experts = getattr(text, "num_experts_per_tok", None)
    if experts and getattr(text, "moe_intermediate_size", None):
        intermediate = experts * text.moe_intermediate_size
    kinds = getattr(text, "layer_types", None) or []
    recurrent = sum(kind not in ("full_attention", "sliding_attention", "chunked_attention") for kind in kinds)
    return Language(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocabulary=text.vocab_size,
        cross_layers=len(getattr(text, "cross_attention_layers", None) or ()),
        cached_layers=text.num_hidden_layers - recurrent if recurrent else -1,
        lora_width=width,
    )


def _vision(config: Any, vision: Any) -> Vision:
    def first(*names: str) -> int:
        return next(int(value) for name in names if (value := getattr(vision, name, None)))

    hidden = first("hidden_size", "embed_dim")
    return Vision(
        hidden=hidden,
        layers=first("num_hidden_layers", "depth"),
        heads=first("num_attention_heads", "attention_heads", "num_heads"),
        intermediate=int(getattr(vision, "intermediate_size", None) or 4 * hidden),
        keeps_layers=config.model_type.startswith(("llava", "vipllava", "mllama")),
    )


@lru_cache(maxsize=16)
def scorer_sizes(checkpoint: str) -> ScorerSizes:
    """The sizes of an open_clip model: a folder, or the name of a model that open_clip knows, with its weights' name.

    Raises:
        ArchitectureUnknown: neither.
    """
    from tasks.core.models.meta import open_clip_config

    folder = Path(checkpoint).expanduser()
    if (folder / "open_clip_config.json").is_file():
        config: Mapping[str, Any] | None = _json(folder / "open_clip_config.json")["model_cfg"]
    else:
        config = open_clip_config(checkpoint.partition("/")[0])
    if config is None or not isinstance(config["vision_cfg"].get("layers"), int):
        raise ArchitectureUnknown(f"{checkpoint}: the scorer's sizes are not known here")
    return _open_clip_sizes(config)


def _open_clip_sizes(config: Mapping[str, Any]) -> ScorerSizes:
    from tasks.core.models.meta import open_clip_parameters

    image, text = config["vision_cfg"], config["text_cfg"]
    width, side, patch = int(image["width"]), int(image["image_size"]), int(image["patch_size"])
    text_width = int(text.get("width", 512))
    return ScorerSizes(
        parameters=open_clip_parameters(config),
        vision=Vision(width, int(image["layers"]), width // int(image.get("head_width", 64)), 4 * width),
        patches=(side // patch) ** 2 + 1,
        pixels=3 * side**2,
        text=Vision(text_width, int(text.get("layers", 12)), int(text.get("heads", 8)), 4 * text_width),
        context=int(text.get("context_length", 77)),
    )
