"""Weights wide enough for texts and images to matter; with the library's 0.02 one token is repeated for ever."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.tiny.words import said_tokens

_INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight")
_IN_TEXT = (*_INTO_RESIDUAL, "feed_forward.w2.weight", "out_proj.weight", "per_layer_projection.weight")
_EXPERTS = ("experts.down_proj", "fc2.weight")  # of all experts in one tensor


def draw_weights(model: Any, tok: Any, ends: tuple[str, ...]) -> None:
    """Draw the weights in place.

    Component 0 of the text's hidden states is constant, so that column 0 of the output is a bias: answers and sentences
    end now and then, and placeholders are never said.
    """
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif "gate" in name.rsplit(".", 1)[-1]:  # zero at first: Mllama would not see its image
            torch.nn.init.constant_(weight, 0.5)
        if name.endswith(_IN_TEXT if "language_model" in name else _INTO_RESIDUAL):
            torch.nn.init.zeros_(weight[0])
        if weight.dim() == 3 and name.endswith(_EXPERTS):  # [experts, rows, columns], either way round
            axis = list(weight.shape).index(model.config.get_text_config().hidden_size, 1)
            torch.nn.init.zeros_(weight.select(axis, 0))
    words, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if words is output:
        _draw_tied(words, tok, ends)
        return
    torch.nn.init.normal_(words)
    torch.nn.init.constant_(words[:, 0], 2.0)
    words /= getattr(model.get_input_embeddings(), "embed_scale", 1.0)  # Gemma's are multiplied when they are read
    torch.nn.init.normal_(output, std=3 * output.shape[1] ** -0.5)
    torch.nn.init.zeros_(output[:, 0])
    for end in ends:
        output[tok.convert_tokens_to_ids(end)] *= 0.3  # about as likely everywhere
    for token, bias in {**dict.fromkeys(ends, 4.0), ".": 2.0, "!": 2.0, "?": 2.0}.items():
        output[tok.convert_tokens_to_ids(token), 0] = bias
    indices = torch.tensor(sorted(_never_said(tok) - set(tok.convert_tokens_to_ids(list(ends)))))
    output[indices[indices < len(output)], 0] = -20.0


def _draw_tied(words: torch.Tensor, tok: Any, ends: tuple[str, ...]) -> None:
    """An embedding that is the output layer too has no bias: long rows are likely, short ones are not."""
    torch.nn.init.normal_(words, std=1.5 * words.shape[1] ** -0.5)
    kept = set(tok.convert_tokens_to_ids(list(ends)))
    words[sorted(kept | set(tok.convert_tokens_to_ids([".", "!", "?"])))] *= 2.0
    words[sorted(_never_said(tok) - kept)] *= 0.2


def _never_said(tok: Any) -> set[int]:
    """All but whole words with the space before them and marks: what is said is read back as the same tokens."""
    ids = tok.get_vocab()
    return set(ids.values()) - {ids[token] for token in said_tokens() if token in ids}
