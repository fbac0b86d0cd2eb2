"""Attention of a chunk of new tokens over the kept ones, by the fastest exact way there is on each device."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(
    queries: Float[Tensor, "query_heads tokens head_dim"],
    keys: Float[Tensor, "kv_heads slots head_dim"],
    values: Float[Tensor, "kv_heads slots head_dim"],
    scaling: float,
    mask: Float[Tensor, "tokens slots"] | None,
) -> Float[Tensor, "query_heads tokens head_dim"]:
    """Grouped-query attention; the query heads that share a key/value head are folded into rows, which copies nothing.

    `mask` is added to the logits; None for a single token that sees everything.
    """
    query_heads, tokens, head_dim = queries.shape
    kv_heads = keys.shape[0]
    group = query_heads // kv_heads
    folded = queries.reshape(kv_heads, group * tokens, head_dim)
    if mask is None:
        # A product over so few rows is faster than a fused kernel on a CPU, and as fast on a GPU.
        weights = (folded @ keys.transpose(1, 2)).float().mul_(scaling).softmax(-1).to(values.dtype)
        out = weights @ values
    else:
        rows = mask.expand(group, *mask.shape).reshape(group * tokens, -1)
        out = scaled_dot_product_attention(
            folded[None], keys[None], values[None], attn_mask=rows[None, None], scale=scaling
        )[0]
    return out.reshape(query_heads, tokens, head_dim)


def chunk_mask(
    used: int,
    tokens: int,
    window: int | None,
    two_way: Int[Tensor, "tokens"] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "tokens slots"]:
    """0 where a new token sees a slot, -inf elsewhere; the new tokens are the last `tokens` of used + tokens slots.

    `window` limits sight to that many latest slots. `two_way` numbers groups of new tokens that see each other in
    both directions; negative numbers stand for no group.
    """
    query = torch.arange(used, used + tokens, device=device)[:, None]
    slot = torch.arange(used + tokens, device=device)[None]
    seen: Bool[Tensor, "tokens slots"] = slot <= query
    if window is not None:
        seen &= query - slot < window
    if two_way is not None:
        same = (two_way[:, None] == two_way[None]) & (two_way >= 0)[None]
        seen[:, used:] |= same
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
