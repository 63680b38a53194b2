"""Products of matrices, by what computes them fastest.

On CPUs PyTorch leaves products to BLAS and convolutions to oneDNN. The latter can be twice as fast: on two cores of a
Zen 5, on which MKL does without AVX-512, tokens times 512 x 2048 weights took 195 GFLOP/s as a `linear` and 430 as a
convolution, and attention over 2688 tokens 170 by `scaled_dot_product_attention` and 290 like this. Nothing is copied
for it: tokens `(B, T, D)`, seen as maps of D features and a height of one, are in the layout that oneDNN likes best.
The results are the same but for rounding.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

SCORES = 2**20  # of attention at a time: 4 MB, which stay in the cache


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`(B, T, D)` times `weight` `(D', D)`, plus `bias` `(D')` -> `(B, T, D')`."""
    if not _is_for_convolutions(x):
        return functional.linear(x, weight, bias)
    y = functional.conv2d(x.transpose(1, 2).unsqueeze(2), weight[:, :, None, None], bias)
    return y.squeeze(2).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """From tokens `(B, T, D)` to others `(B, T', D)` -> `(B, T, D)`, with the heads side by side in all of them."""
    if torch.is_grad_enabled() or not _is_for_convolutions(query):
        query, key, value = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    mixed = torch.empty_like(query)
    key = key / math.sqrt(query.shape[2] // heads)
    for into, queries, keys, values in zip(mixed, query, key, value, strict=True):
        columns = (x.tensor_split(heads, dim=1) for x in (into, queries, keys))
        for head in zip(*columns, values.T.contiguous().tensor_split(heads), strict=True):
            _attend(*head)
    return mixed


def _attend(mixed: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
    """One head of one example: `mixed` and `query` `(T, D)`, `key` `(T', D)`, scaled, and `value` `(D, T')`."""
    count = -(-len(query) * len(key) // SCORES)
    for some, queries in zip(mixed.tensor_split(count), query.tensor_split(count), strict=True):
        scores = linear(queries.unsqueeze(0), key)
        some.copy_(linear(scores.softmax(2), value)[0])


def _is_for_convolutions(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
