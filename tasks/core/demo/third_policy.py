"""A third tiny policy, of another architecture: Qwen2-VL with its own tower, rotary axes and images of any size.

The demo's other policies are LLaVA's: a CLIP tower that sees one size, and positions in a row. This one learns the same
captions by the same training, so that what holds for them can be asked again of another family. Its tower learns as theirs.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.demo.policy_model import (
    BOS,
    CHAT_TEMPLATE,
    CONTEXT,
    EOS,
    IMAGE,
    PAD,
    USER,
    build_tokenizer,
    token_id,
)
from tasks.core.demo.scenes import SIDE
from tasks.core.demo.train_vision import PIXEL_MEAN, PIXEL_STD
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import (  # noqa: E402
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

START, END, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"
PATCH, MERGED, FRAMES = 16, 2, 2  # px; patches a side of one image token; an image counts as so many frames
TOKENS = (SIDE // (PATCH * MERGED)) ** 2  # image tokens of a scene: one for each cell, as LLaVA's have
WIDTH, LAYERS = 128, 3


def third_tokenizer() -> PreTrainedTokenizerFast:
    """The other policies' tokenizer with Qwen's marks around an image."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([START, END, VIDEO], special_tokens=True)
    return tokenizer


def third_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """Images of 32 x 32 to 384 x 384 pixels, a token for each 32 x 32; the other policies' template with Qwen's marks."""
    side = PATCH * MERGED
    images = Qwen2VLImageProcessor(
        size={"shortest_edge": side**2, "longest_edge": (12 * side) ** 2},
        patch_size=PATCH,
        merge_size=MERGED,
        temporal_patch_size=FRAMES,
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    )
    template = CHAT_TEMPLATE.replace(IMAGE, f"{START}{IMAGE}{END}")
    return Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=template)


def third_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """The policy with random weights (seed torch before)."""
    heads = WIDTH // 32
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    ids: dict[str, Any] = {name: token_id(tokenizer, token) for name, token in special.items()}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        **ids,
    }
    vision = {
        "depth": LAYERS,
        "embed_dim": WIDTH,
        "hidden_size": WIDTH,
        "mlp_ratio": 3,
        "num_heads": heads,
        "patch_size": PATCH,
        "spatial_merge_size": MERGED,
        "temporal_patch_size": FRAMES,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(tokenizer, IMAGE),
        video_token_id=token_id(tokenizer, VIDEO),
        vision_start_token_id=token_id(tokenizer, START),
        vision_end_token_id=token_id(tokenizer, END),
        tie_word_embeddings=True,
        **ids,
    )
    model = Qwen2VLForConditionalGeneration(config)
    for name, value in ids.items():
        setattr(model.generation_config, name, value)
    return model


def patches(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What Qwen's processor makes of normalised images: rows of patches, and the grid of each image.

    Args:
        pixels: [B, 3, H, W], sides that are multiples of PATCH * MERGED.

    Returns:
        (float [B * H/PATCH * W/PATCH, 3 * FRAMES * PATCH**2], int64 [B, 3]: time, height and width in patches).

    Raises:
        ValueError: another shape.
    """
    unit = PATCH * MERGED
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % unit or pixels.shape[3] % unit:
        raise ValueError(f"pixels of shape {tuple(pixels.shape)}: want [B, 3, H, W] with sides that {unit} divides")
    count, _, height, width = pixels.shape
    cells = pixels.view(count, 3, height // unit, MERGED, PATCH, width // unit, MERGED, PATCH)
    cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7)  # image, row and column of cell, of patch in it, channel, y, x
    rows = cells.unsqueeze(6).expand(*cells.shape[:6], FRAMES, PATCH, PATCH)
    grid = torch.tensor([[1, height // PATCH, width // PATCH]]).expand(count, 3)
    return rows.reshape(-1, 3 * FRAMES * PATCH * PATCH), grid


class Tower(nn.Module):
    """The policy's tower as `train_vision` trains one: a state for each cell of the grid."""

    def __init__(self, visual: nn.Module) -> None:
        """`visual` is the policy's own, which learns in place."""
        super().__init__()
        self.visual = visual
        self.config = SimpleNamespace(hidden_size=WIDTH)

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        """Pixels [B, 3, SIDE, SIDE] to states [B, TOKENS, WIDTH]."""
        rows, grid = patches(pixels)
        merged = self.visual(rows, grid_thw=grid).pooler_output
        return SimpleNamespace(last_hidden_state=merged.view(len(pixels), TOKENS, WIDTH))


class Taught(nn.Module):
    """The policy as `train_policy` trains one: it takes LLaVA's inputs and adds what Qwen2-VL has more."""

    def __init__(self, policy: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        """`policy` learns in place."""
        super().__init__()
        self.policy = policy
        self.config = SimpleNamespace(image_seq_length=TOKENS)
        self.marks = [token_id(tokenizer, token) for token in (START, END)]
        self.image = token_id(tokenizer, IMAGE)
        self.opening = [token_id(tokenizer, token) for token in (BOS, USER)]

    def forward(self, *, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Any:
        """The loss of answers whose prompts open with the image, as `train_policy.collate` makes them: int64 [B, T]."""
        first = len(self.opening)
        ids = self._marked(input_ids, first)
        rows, grid = patches(pixel_values)
        return self.policy(
            input_ids=ids,
            attention_mask=_widened(attention_mask, first, 1),
            labels=_widened(labels, first, -100),
            pixel_values=rows,
            image_grid_thw=grid,
            mm_token_type_ids=(ids == self.image).int(),
        )

    def _marked(self, ids: Tensor, first: int) -> Tensor:
        """The ids with a mark before and behind the image's tokens."""
        start, end = (ids.new_full((len(ids), 1), mark) for mark in self.marks)
        return torch.cat([ids[:, :first], start, ids[:, first : first + TOKENS], end, ids[:, first + TOKENS :]], dim=1)


def _widened(values: Tensor, first: int, filler: int) -> Tensor:
    """[B, T] with a column more before and behind the image's."""
    column = values.new_full((len(values), 1), filler)
    return torch.cat(
        [values[:, :first], column, values[:, first : first + TOKENS], column, values[:, first + TOKENS :]], 1
    )
