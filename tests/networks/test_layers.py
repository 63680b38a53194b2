"""Layers that run faster than PyTorch's own on some processors, and give the same."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stemsplit.networks import _layers


@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
@pytest.mark.parametrize(("tokens", "others"), [(60, 60), (300, 700)])
@torch.no_grad()
def test_attention(capability: str, tokens: int, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(_layers, "SCORES_AT_ONCE", 2**16)
    blocks: list[Tensor] = []
    attend = _layers._attend

    def spy(out: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
        blocks.append(out)
        attend(out, query, key, value)

    monkeypatch.setattr(_layers, "_attend", spy)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, 48, generator=generator) for n in (tokens, others, others))
    q, k, v = (x.view(2, -1, 3, 16).transpose(1, 2) for x in (query, key, value))
    expected = functional.scaled_dot_product_attention(q, k, v)
    result = _layers.attention(query, key, value, heads=3)
    torch.testing.assert_close(result, expected.transpose(1, 2).flatten(2), rtol=0, atol=1e-5)
    assert bool(blocks) == (capability == "AVX512" and others > 256)
