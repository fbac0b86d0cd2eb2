"""Attention of a chunk of new tokens over the kept ones, by the fastest exact way there is on each device.

Every product runs over one of a few shapes (`inf_stream.base.grid`), and a mask hides what was added to reach it.

There are two ways. torch's fused kernel never holds the weights. Two products with a softmax between them hold those of
a few hundred rows at a time, and tell what attention each slot received. In bfloat16 on a CPU the fused kernel works
through small blocks, while logits from one float32 product (as exact as its own; bfloat16 ones would be five times
further off) take about three quarters of its time (`demos/bench/attention.py`).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from inf_stream.base.grid import padded_tokens

_ROWS_AT_ONCE = {"cpu": 256}
_MOST_ROWS_AT_ONCE = 4096


def products_are_faster(tokens: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `attend` had better be two products: for a single token everywhere, and for more in bfloat16 on a CPU
    without a unit for matrices (AMX), which the fused kernel uses."""
    if tokens == 1:
        return True
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and dtype == torch.bfloat16 and not has_amx()


def attend(
    queries: Float[Tensor, "query_heads tokens head_dim"],
    keys: Float[Tensor, "kv_heads slots head_dim"],
    values: Float[Tensor, "kv_heads slots head_dim"],
    scaling: float,
    mask: Float[Tensor, "group_rows slots"],
) -> Float[Tensor, "query_heads tokens head_dim"]:
    """Grouped-query attention by the fused kernel; query heads that share a key/value head are folded into rows.

    `mask`, from `chunk_mask` in the format of the queries, is added to the logits; it has rows for padded tokens too.
    """
    query_heads, tokens, head_dim = queries.shape
    folded = _folded(queries, keys.shape[0])
    out = scaled_dot_product_attention(
        folded[None], keys[None], values[None], attn_mask=mask[None, None], scale=scaling
    )[0]
    return out.reshape(query_heads, -1, head_dim)[:, :tokens]


def attend_by_products(
    queries: Float[Tensor, "query_heads tokens head_dim"],
    keys: Float[Tensor, "kv_heads slots head_dim"],
    values: Float[Tensor, "kv_heads slots head_dim"],
    scaling: float,
    mask: Float[Tensor, "group_rows slots"],
    received: Float[Tensor, "kv_heads slots"] | None = None,
) -> Float[Tensor, "query_heads tokens head_dim"]:
    """`attend` with a mask in at least float32.

    To `received`, in the format of the mask, is added the attention that each slot receives: summed over the new
    tokens, averaged over the query heads that share a key/value head.
    """
    query_heads, tokens, head_dim = queries.shape
    kv_heads = keys.shape[0]
    folded = _folded(queries, kv_heads).to(mask.dtype)
    group_rows = folded.shape[1]
    group = query_heads // kv_heads
    rows = group_rows // group
    most = _ROWS_AT_ONCE.get(queries.device.type, _MOST_ROWS_AT_ONCE)
    heads_at_once, rows_at_once = max(1, most // group_rows), max(1, most // rows) * rows
    out = torch.empty(folded.shape, dtype=values.dtype, device=values.device)
    counts = (torch.arange(group_rows, device=mask.device) % rows < tokens).to(mask.dtype) / group
    for first in range(0, kv_heads, heads_at_once):
        heads = slice(first, first + heads_at_once)
        keys_across = keys[heads].to(mask.dtype).transpose(1, 2)
        for start in range(0, group_rows, rows_at_once):
            some = slice(start, start + rows_at_once)
            hidden = mask[some].expand(len(keys_across), -1, -1)
            weights = hidden.baddbmm(folded[heads, some], keys_across, alpha=scaling).softmax(-1)
            out[heads, some] = weights.to(values.dtype) @ values[heads]
            if received is not None:
                received[heads] += counts[some] @ weights
    return out.reshape(query_heads, rows, head_dim)[:, :tokens]


def _folded(queries: Float[Tensor, "query_heads tokens head_dim"], kv_heads: int) -> Float[Tensor, "kv_heads rows dim"]:
    """Query heads that share a key/value head one below the other, each padded to the grid."""
    query_heads, tokens, head_dim = queries.shape
    rows = padded_tokens(tokens)
    return pad(queries, (0, 0, 0, rows - tokens)).reshape(kv_heads, query_heads // kv_heads * rows, head_dim)


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
