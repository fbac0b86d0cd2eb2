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
    mask: Float[Tensor, "group_tokens slots"] | None,
) -> Float[Tensor, "query_heads tokens head_dim"]:
    """Grouped-query attention; the query heads that share a key/value head are folded into rows, which copies nothing.

    `mask`, from `chunk_mask`, is added to the logits; None for a single token that sees everything.
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
        out = scaled_dot_product_attention(
            folded[None], keys[None], values[None], attn_mask=mask[None, None], scale=scaling
        )[0]
    return out.reshape(query_heads, tokens, head_dim)


def chunk_mask(
    used: int,
    tokens: int,
    group: int,
    window: int | None,
    two_way: Int[Tensor, "tokens"] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "group_tokens slots"]:
    """0 where a new token sees a slot, -inf elsewhere; the new tokens are the last `tokens` of used + tokens slots.

    `window` limits sight to that many latest slots. `two_way` numbers groups of new tokens that see each other in
    both directions; negative numbers stand for no group. The rows repeat once for each of the `group` query heads
    that share a key/value head, as `attend` folds them.
    """
    query = torch.arange(used, used + tokens, device=device)[:, None]
    slot = torch.arange(used + tokens, device=device)[None]
    seen: Bool[Tensor, "tokens slots"] = slot <= query
    if window is not None:
        seen &= query - slot < window
    if two_way is not None:
        same = (two_way[:, None] == two_way[None]) & (two_way >= 0)[None]
        seen[:, used:] |= same
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
    return mask.repeat(group, 1)
