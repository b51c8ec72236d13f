"""Attention kernels of our own for one query token, or a few, that read grouped keys in place, and their mask.

All are plain PyTorch, registered with transformers by name; longer queries go through transformers' own sdpa.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

PACKED = "sdpa_gqa"
"""One call of PyTorch's fused attention, the query laid out by key heads."""
SPLIT = "split_gqa"
"""Three products over pieces of the cache: few rows of a long context still fill a big device."""
INLINE = "inline_gqa"
"""Sums that inductor fuses with what stands around them: no call, no copy. Made for CPUs."""
NAMES = (PACKED, SPLIT, INLINE)
EXPANDED, LATENT, ABSORBED = "mla_expanded", "mla_latent", "mla_absorbed"
LATENT_WAYS = (EXPANDED, LATENT, ABSORBED)
"""Ways of DeepSeek-V3's latent attention (mla.py); what they have left to attend goes through transformers' sdpa."""
SPLIT_TOKENS = 256
"""Cached tokens per piece of `split_gqa`: a piece of one key head in bfloat16 is 128 KiB of keys and values."""

INLINE_TOKENS = 16
"""Cached tokens per piece of `inline_gqa`: four kibibytes of values at a width of 64, read whole while near."""


FEW_TOKENS = 16
"""Query tokens per row up to which our kernels apply: a token with its drafts, not a prompt."""


class _Prefill:
    """Whether several tokens at once go into an empty cache, so that no mask has to be made for them."""

    is_from_empty = False


def set_prefill_from_empty(is_from_empty: bool) -> None:
    """Promise that the next forward passes with several tokens fill an empty cache and pad nothing."""
    _Prefill.is_from_empty = is_from_empty


def register() -> None:
    """Make our kernels known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    ours = ((PACKED, packed_attention), (SPLIT, split_attention), (INLINE, inline_attention))
    for name, kernel in (*ours, *((way, plain_attention) for way in LATENT_WAYS)):
        AttentionInterface.register(name, kernel)
        AttentionMaskInterface.register(name, mask_unless_causal)


def mask_unless_causal(*, q_length: int, local_size: int | None = None, **kwargs: Any) -> torch.Tensor | None:
    """transformers' boolean mask (rows, 1, queries, keys); None for a whole prompt into an empty cache.

    There sdpa's own causal flag says the same, over the new tokens alone, and the flash kernel can take it.
    transformers skips this mask as well, but reads the cache's length on the host, and never under torch.compile.
    Source: transformers 5.23, masking_utils.py `_ignore_causal_mask_sdpa`.
    """
    from transformers.masking_utils import sdpa_mask

    is_whole = local_size is None or q_length <= local_size
    if q_length > 1 and is_whole and _Prefill.is_from_empty and kwargs.get("allow_is_causal_skip", True):
        return None
    return sdpa_mask(q_length=q_length, local_size=local_size, **kwargs)


class _Grouped(NamedTuple):
    """Shape of one decode step of attention."""

    rows: int
    key_heads: int
    tokens: int
    """Query tokens of each row."""
    queries: int
    """Query heads per key head, times `tokens`."""
    width: int
    length: int
    """Cached tokens, masked ones included."""


def _grouped(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> _Grouped | None:
    """The shape, where tokens are few and every head has the same mask; None where our kernels do not apply."""
    rows, heads, tokens, width = query.shape
    if tokens > FEW_TOKENS or mask is None or mask.shape[1] != 1:
        return None
    return _Grouped(rows, key.shape[1], tokens, heads // key.shape[1] * tokens, width, key.shape[2])


def _for_queries(mask: torch.Tensor, shape: _Grouped) -> torch.Tensor:
    """The mask of tokens, (rows, 1, tokens, cached), as one of all queries of a key head."""
    return mask if shape.tokens == 1 else mask.repeat(1, 1, shape.queries // shape.tokens, 1)


def _by_tokens(found: torch.Tensor, shape: _Grouped) -> torch.Tensor:
    """What every query found, (rows, key heads, queries, width), as (rows, tokens, heads, width)."""
    if shape.tokens == 1:
        return found.reshape(shape.rows, 1, -1, found.shape[-1])
    return found.reshape(shape.rows, -1, shape.tokens, found.shape[-1]).transpose(1, 2).contiguous()


def plain_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' own sdpa under another name, so that the record tells what is done around it.

    In a prefill, values narrower than keys (latent attention: 128 beside 192) are filled up with zeros and cut again:
    PyTorch's flash kernels want one width, and without them a CPU writes the score of every pair of tokens out.
    """
    width = value.shape[-1]
    if query.shape[2] == 1 or width >= key.shape[-1]:
        return _sdpa(module, (query, key, value), attention_mask, **kwargs)
    wide = torch.nn.functional.pad(value, (0, key.shape[-1] - width))
    found, _ = _sdpa(module, (query, key, wide), attention_mask, **kwargs)
    return found[..., :width], None


def _sdpa(module: Any, tensors: tuple[Any, ...], mask: torch.Tensor | None, **kwargs: Any) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, *tensors, mask, **kwargs)
    return found


def _scale(shape: _Grouped, kwargs: dict[str, Any]) -> float:
    given = kwargs.get("scaling")
    return float(shape.width**-0.5 if given is None else given)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA whose query tokens are laid out by key heads, so that no key or value is repeated.

    `query`: (rows, heads, tokens, width); `key`, `value`: (rows, key heads, cached tokens, width). Under torch.compile
    transformers writes every key out once per query head: nine times the traffic at four query heads a key head.
    Source: shared/facts/transformers.md, Attention; transformers 5.23, integrations/sdpa_attention.py, `pack_gqa`.
    """
    shape = _grouped(query, key, attention_mask)
    if shape is None or shape.queries == shape.tokens:
        return _sdpa(module, (query, key, value), attention_mask, **kwargs)
    assert attention_mask is not None
    found = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(shape.rows, shape.key_heads, shape.queries, shape.width),
        key,
        value,
        attn_mask=_for_queries(attention_mask, shape),
        scale=kwargs.get("scaling"),
    )
    return _by_tokens(found, shape), None


def split_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The same as three batched products, the one with the values cut along the context and summed afterwards.

    The fused kernels give one key head to one multiprocessor: at batch 1 eight of an H200's 132 would read the cache.
    Needs room for the scores: rows * heads * cached tokens in float32.
    Source of the idea: Flash-Decoding (Dao et al. 2023), here without its kernel.
    """
    shape = _grouped(query, key, attention_mask)
    if shape is None:
        return _sdpa(module, (query, key, value), attention_mask, **kwargs)
    assert attention_mask is not None
    by_heads = query.reshape(shape.rows, shape.key_heads, shape.queries, shape.width)
    scores = torch.matmul(by_heads, key.transpose(2, 3)).float() * _scale(shape, kwargs)
    shares = torch.softmax(scores.masked_fill(~_for_queries(attention_mask, shape), float("-inf")), -1).to(value.dtype)
    piece = SPLIT_TOKENS if shape.length % SPLIT_TOKENS == 0 else shape.length
    pieces = shape.length // piece
    shares = shares.reshape(shape.rows, shape.key_heads, shape.queries, pieces, piece).transpose(2, 3)
    values = value.reshape(shape.rows, shape.key_heads, pieces, piece, value.shape[-1])
    found = torch.matmul(shares, values).sum(2, dtype=torch.float32).to(query.dtype)
    return _by_tokens(found, shape), None


def inline_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The same as sums of products, for inductor to fuse with the layers around it. Needs torch.compile to be fast.

    Pieces of the cache stand outside the queries: each is read once, for all of its queries, and with three key heads
    and two threads it is pieces that divide evenly, not heads.
    """
    shape = _grouped(query, key, attention_mask)
    if shape is None:
        return _sdpa(module, (query, key, value), attention_mask, **kwargs)
    assert attention_mask is not None
    piece = INLINE_TOKENS if shape.length % INLINE_TOKENS == 0 else shape.length
    pieces = shape.length // piece
    by_heads = settled(query).reshape(shape.rows, shape.key_heads, 1, shape.queries, 1, shape.width)
    keys = key.reshape(shape.rows, shape.key_heads, pieces, 1, piece, shape.width)
    scores = (by_heads * keys).sum(-1, dtype=torch.float32) * _scale(shape, kwargs)
    mask = _for_queries(attention_mask, shape).unflatten(-1, (pieces, piece)).transpose(2, 3)
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = settled(torch.exp(scores - scores.amax((2, 4), keepdim=True)))
    values = value.reshape(shape.rows, shape.key_heads, pieces, 1, piece, value.shape[-1])
    found = (weights[..., None] * values).sum(-2, dtype=torch.float32).sum(2)
    found = (found / weights.sum((2, 4)).unsqueeze(-1)).to(query.dtype)  # not divided at every cached token
    return _by_tokens(found, shape), None


def settled(tensor: torch.Tensor) -> torch.Tensor:
    """The same tensor, written to memory before it is read.

    Inductor would otherwise write its whole formula into the loop that reads it: the rotation of a query, sines and
    all, was computed anew for every cached token. Source: torch 2.13, _inductor/lowering.py, `as_strided` (realizes).
    """
    packed = tensor.contiguous()
    return packed.as_strided(packed.shape, packed.stride())
