"""`inline_gqa` beside plain attention: lengths that no piece divides, drafts, windows, 16 bits, plain and compiled."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tokbench.measure.engines.transformers.attention import INLINE_TOKENS, inline_attention  # noqa: E402
from tokbench.measure.engines.transformers.compiling import cpu_backend  # noqa: E402

ROWS, HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH = 2, 6, 2, 8, 4


def difference(length: int, tokens: int, window: int, dtype: torch.dtype, kernel: object = inline_attention) -> float:
    """The largest difference from attention with repeated keys in float32; rows stand apart, scaling is given."""
    draw = torch.Generator().manual_seed(1)
    shapes = ((HEADS, tokens, WIDTH), (KEY_HEADS, length, WIDTH), (KEY_HEADS, length, VALUE_WIDTH))
    query, key, value = (torch.randn(ROWS, *shape, generator=draw).to(dtype) for shape in shapes)
    newest = torch.tensor([length - 2, length - 5])[:, None, None, None] - torch.arange(tokens).flip(0)[:, None]
    seen = (torch.arange(length) <= newest) & (torch.arange(length) > newest - window)
    assert callable(kernel)
    found, _ = kernel(None, query, key, value, seen, scaling=0.3)
    assert found.dtype == dtype and found.shape == (ROWS, tokens, HEADS, VALUE_WIDTH)
    keys, values = (states.float().repeat_interleave(HEADS // KEY_HEADS, dim=1) for states in (key, value))
    scores = (query.float() @ keys.transpose(2, 3) * 0.3).masked_fill(~seen, -math.inf)
    return float((found.float() - (scores.softmax(-1) @ values).transpose(1, 2)).abs().max())


@pytest.mark.parametrize("length", [3 * INLINE_TOKENS, 3 * INLINE_TOKENS + 5, 12])
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("window", [3, 999])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_pieces_of_the_cache_make_one_attention(
    length: int, tokens: int, window: int, dtype: torch.dtype, most: float
) -> None:
    """A window of three tokens leaves whole pieces unseen."""
    assert difference(length, tokens, window, dtype) < most


@pytest.mark.parametrize(("length", "tokens", "window"), [(48, 1, 999), (48, 4, 3), (37, 2, 20)])
def test_generated_code_makes_the_same(length: int, tokens: int, window: int) -> None:
    kernel = torch.compile(inline_attention, fullgraph=True, dynamic=False, backend=cpu_backend())
    with torch.inference_mode():
        assert difference(length, tokens, window, torch.float32, kernel) < 1e-5
