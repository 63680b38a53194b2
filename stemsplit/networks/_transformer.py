"""The transformer of Hybrid Transformer Demucs, over two sequences of tokens.

Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation" (ICASSP 2023). Modules are named as in the
published checkpoints.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._layout import Norm, in_pieces
from stemsplit.networks._products import attention, linear
from stemsplit.networks._residual import LayerScale

PERIOD = 10_000.0  # the longest of the embeddings' waves is about 2 pi times that, in tokens
HIDDEN = 4  # how many times wider the perceptrons are inside
SCALE = 1e-4  # of a fresh layer


class CrossTransformer(nn.Module):
    """Layers in pairs, one a sequence. Odd ones attend to the other sequence as it was before the pair."""

    def __init__(self, width: int, *, layers: int, heads: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.norm_in_t = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, heads, cross=index % 2 == 1) for index in range(layers))
        self.layers_t = nn.ModuleList(_Layer(width, heads, cross=index % 2 == 1) for index in range(layers))

    def forward(self, x: Tensor, xt: Tensor, *, bins: int) -> tuple[Tensor, Tensor]:
        """`(B, bins * T, width)`, bin by bin, and `(B, T', width)` -> the same shapes."""
        x = self.norm_in(x) + _places_2d(x, bins)
        xt = self.norm_in_t(xt) + _places_1d(xt)
        for layer, layer_t in zip(self.layers, self.layers_t, strict=True):
            x, xt = layer(x, xt), layer_t(xt, x)
        return x, xt


class _Layer(nn.Module):
    """Attention and a perceptron, each added to its input, then a normalisation over all tokens."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.cross = cross
        if cross:
            self.cross_attn = _Attention(width, heads)
            self.norm3 = nn.LayerNorm(width)
        else:
            self.self_attn = _Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, HIDDEN * width)
        self.linear2 = nn.Linear(HIDDEN * width, width)
        self.norm_out = _NormOfAll(1, width)
        self.gamma_1 = LayerScale(width, SCALE)
        self.gamma_2 = LayerScale(width, SCALE)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """`(B, tokens, width)` -> the same shape; `other` is only looked at by layers that cross."""
        if self.cross:
            y, norm = self.cross_attn(self.norm1(x), self.norm2(other)), self.norm3
        else:
            y, norm = self.self_attn(self.norm1(x)), self.norm2
        x = torch.addcmul(x, y, self.gamma_1.scale)
        y = _tokens(in_pieces(self._perceive, _maps(norm(x))))
        x = torch.addcmul(x, y, self.gamma_2.scale)
        normed: Tensor = self.norm_out(x)
        return normed

    def _perceive(self, x: Tensor) -> Tensor:
        inner = functional.gelu(linear(_tokens(x), self.linear1.weight, self.linear1.bias))
        return _maps(linear(inner, self.linear2.weight, self.linear2.bias))


class _Attention(nn.Module):
    """Attention of several heads, from tokens to themselves or to others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # of queries, keys and values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """`(B, tokens, width)`, and whom to attend to if not themselves -> `(B, tokens, width)`."""
        sources = x, x if other is None else other, x if other is None else other
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = map(linear, sources, weights, biases)
        return linear(attention(query, key, value, self.heads), self.out_proj.weight, self.out_proj.bias)


class _NormOfAll(Norm):
    """Normalises all features of all tokens of an example together: `(B, tokens, width)` -> the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return _tokens(super().forward(_maps(x)))


def _maps(x: Tensor) -> Tensor:
    """Tokens `(B, T, D)` as maps `(B, D, 1, T)`, where they are."""
    return x.transpose(1, 2).unsqueeze(2)


def _tokens(x: Tensor) -> Tensor:
    """The inverse."""
    return x.squeeze(2).transpose(1, 2)


def _places_1d(x: Tensor) -> Tensor:
    """Embeddings of the places of tokens `(B, T, width)`: cosines, then sines, `(T, width)`."""
    _, length, width = x.shape
    waves = torch.arange(width // 2, device=x.device) / (width // 2 - 1)
    phases = torch.arange(length, device=x.device).unsqueeze(1) / PERIOD**waves
    return torch.cat([phases.cos(), phases.sin()], dim=1)


def _places_2d(x: Tensor, bins: int) -> Tensor:
    """The same for tokens `(B, bins * T, width)`: half of the features tell the frame and half the bin, by turns sine
    and cosine.
    """
    _, tokens, width = x.shape
    frames = tokens // bins
    rates = torch.exp(torch.arange(0, width // 2, 2, device=x.device) * (-math.log(PERIOD) / (width // 2)))

    def waves(count: int) -> Tensor:
        phases = torch.arange(count, device=x.device).unsqueeze(1) * rates
        return torch.stack([phases.sin(), phases.cos()], dim=2).flatten(1)

    frame, bin_ = waves(frames).unsqueeze(0), waves(bins).unsqueeze(1)
    return torch.cat([frame.expand(bins, -1, -1), bin_.expand(-1, frames, -1)], dim=2).flatten(0, 1)
