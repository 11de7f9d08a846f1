"""Multi-head attention as torch ships it: four products with weights around a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from private_step.errors import UnitsNotFirst
from private_step.layers.linear import watched_linear
from private_step.rules import rule_for
from private_step.tape import Tape

BATCHED = 3  # dimensions of an input: records, tokens, width


def _why_not(module: nn.MultiheadAttention) -> str | None:
    if module.bias_k is not None or module.bias_v is not None:
        return "add_bias_kv is not covered"
    if module.add_zero_attn:
        return "add_zero_attn is not covered"
    return None


@rule_for(nn.MultiheadAttention, why_not=_why_not, covers_children=True)
def multi_head_attention(  # noqa: PLR0913 (as torch has it)
    module: nn.MultiheadAttention,
    tape: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,  # noqa: FBT001, FBT002
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,  # noqa: FBT001, FBT002
    is_causal: bool = False,  # noqa: ARG001, FBT001, FBT002 (a hint; the mask says it)
) -> tuple[Tensor, Tensor | None]:
    """Attend, with the arguments and results of `torch.nn.MultiheadAttention.forward`."""
    if query.dim() != BATCHED:
        raise UnitsNotFirst(tape.module, got=tuple(query.shape), records=tape.units.records)
    queries, keys, values = (
        _heads(x, module.num_heads) for x in _projected(module, tape, (query, key, value))
    )
    mask = _mask(attn_mask, key_padding_mask, queries)
    dropout = module.dropout if module.training else 0.0
    if need_weights:
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        mixed = functional.dropout(weights, dropout) @ values
        shown = weights.mean(dim=1) if average_attn_weights else weights
    else:
        mixed = functional.scaled_dot_product_attention(queries, keys, values, mask, dropout)
        shown = None
    out = module.out_proj
    output = watched_linear(
        tape,
        mixed.transpose(1, 2).flatten(2),
        (out.weight, tape.sum_of(out.weight)),
        (out.bias, tape.sum_of(out.bias)),
    )
    return output if module.batch_first else output.transpose(0, 1), shown


def _projected(
    module: nn.MultiheadAttention, tape: Tape, inputs: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Return queries, keys and values, each of shape (records, tokens, width)."""
    records_first = [x if module.batch_first else x.transpose(0, 1) for x in inputs]
    width, bias = module.embed_dim, module.in_proj_bias
    bias_sum = tape.sum_of(bias)
    whole = module.in_proj_weight
    if whole is not None and inputs[0] is inputs[1] and inputs[1] is inputs[2]:
        weight = (whole, tape.sum_of(whole))
        return watched_linear(tape, records_first[0], weight, (bias, bias_sum)).chunk(3, dim=-1)
    if whole is not None:
        weight_sum = tape.sum_of(whole)
        sums = weight_sum.chunk(3) if weight_sum is not None else (None, None, None)
        weights = list(zip(whole.chunk(3), sums, strict=True))
    else:
        apart = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        weights = [(each, tape.sum_of(each)) for each in apart]
    pieces = [slice(i * width, (i + 1) * width) for i in range(3)]
    return tuple(
        watched_linear(
            tape,
            x,
            weight,
            (
                None if bias is None else bias[piece],
                None if bias_sum is None else bias_sum[piece],
            ),
        )
        for x, weight, piece in zip(records_first, weights, pieces, strict=True)
    )


def _heads(x: Tensor, heads: int) -> Tensor:
    """Return (records, tokens, width) as (records, heads, tokens, width of a head)."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def _mask(attn_mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """Return what is added to the scores, shape (records or 1, heads or 1, queries or 1, keys)."""
    masks = []
    if attn_mask is not None:
        mask = _additive(attn_mask, like)
        by_head = mask.dim() == BATCHED  # shape (records x heads, queries, keys)
        masks.append(torch.unflatten(mask, 0, like.shape[:2]) if by_head else mask[None, None])
    if padding is not None:
        masks.append(_additive(padding, like)[:, None, None])
    return sum(masks[1:], masks[0]) if masks else None


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
