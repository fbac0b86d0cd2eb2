"""Attention of a chunk of new tokens over the kept ones, by the fastest exact way there is on each device.

Every product runs over one of a few shapes (`inf_stream.base.grid`), and a mask hides what was added to reach it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from inf_stream.base.grid import padded_tokens


def attend(
    queries: Float[Tensor, "query_heads tokens head_dim"],
    keys: Float[Tensor, "kv_heads slots head_dim"],
    values: Float[Tensor, "kv_heads slots head_dim"],
    scaling: float,
    mask: Float[Tensor, "group_rows slots"],
) -> Float[Tensor, "query_heads tokens head_dim"]:
    """Grouped-query attention; the query heads that share a key/value head are folded into rows, which copies nothing.

    `mask`, from `chunk_mask`, is added to the logits; it has rows for the padded tokens too.
    """
    query_heads, tokens, head_dim = queries.shape
    kv_heads = keys.shape[0]
    group = query_heads // kv_heads
    if tokens == 1:
        return attend_with_weights(queries, keys, values, scaling, mask)[0]
    rows = padded_tokens(tokens)
    folded = pad(queries, (0, 0, 0, rows - tokens)).reshape(kv_heads, group * rows, head_dim)
    out = scaled_dot_product_attention(
        folded[None], keys[None], values[None], attn_mask=mask[None, None], scale=scaling
    )[0]
    return out.reshape(query_heads, rows, head_dim)[:, :tokens]


def attend_with_weights(
    queries: Float[Tensor, "query_heads 1 head_dim"],
    keys: Float[Tensor, "kv_heads slots head_dim"],
    values: Float[Tensor, "kv_heads slots head_dim"],
    scaling: float,
    mask: Float[Tensor, "group slots"],
) -> tuple[Float[Tensor, "query_heads 1 head_dim"], Float[Tensor, "kv_heads group slots"]]:
    """`attend` of a single new token, and the attention it pays to every slot.

    A product over so few rows is faster than a fused kernel on a CPU, and as fast on a GPU.
    """
    query_heads, _, head_dim = queries.shape
    kv_heads = keys.shape[0]
    folded = queries.reshape(kv_heads, query_heads // kv_heads, head_dim)
    weights = (folded @ keys.transpose(1, 2)).float().mul_(scaling).add_(mask).softmax(-1)
    return (weights.to(values.dtype) @ values).reshape(query_heads, 1, head_dim), weights


def chunk_mask(
    used: int,
    tokens: int,
    slots: int,
    group: int,
    window: int | None,
    two_way: Int[Tensor, "tokens"] | None,
    dtype: torch.dtype,
    device: torch.device,
    recalled: slice = slice(0, 0),
) -> Float[Tensor, "group_rows slots"]:
    """0 where a new token sees a slot, -inf elsewhere; the new tokens follow `used` slots.

    `slots` are read, those behind the new tokens hidden. `window` limits sight to that many latest slots, of which
    `recalled` ones are none: they are out of such sight. `two_way` numbers groups of new tokens that see each other in
    both directions; negative numbers stand for no group. Rows of padded tokens follow, which see something, so that no
    row is empty; and all rows repeat once for each of the `group` query heads that share a key/value head, as `attend`
    folds them.
    """
    rows = padded_tokens(tokens)
    query = torch.arange(used, used + rows, device=device)[:, None]
    slot = torch.arange(slots, device=device)[None]
    seen: Bool[Tensor, "rows slots"] = (slot <= query) & (slot < used + tokens)
    if window is not None:
        nearer = torch.where(slot < recalled.start, recalled.stop - recalled.start, 0)
        behind = (slot >= recalled.start) & (slot < recalled.stop)
        seen &= ((query - slot - nearer < window) & ~behind) | (query >= used + tokens)
    if two_way is not None:
        same = (two_way[:, None] == two_way[None]) & (two_way >= 0)[None]
        seen[:tokens, used : used + tokens] |= same
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
    return mask.repeat(group, 1)
