"""The cross-domain transformer of Hybrid Transformer Demucs, over tokens of the spectrogram and of the samples.

Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation" (ICASSP 2023). Modules are named as in the
published checkpoints.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._demucs_residual import LayerScale
from stemsplit.networks._layers import GroupNorm, attention, linear, map_chunks

MAX_PERIOD = 10_000.0  # of the positional embeddings, in tokens, over 2 pi
EXPANSION = 4  # how many times wider the feed-forward networks are inside
LAYER_SCALE = 1e-4  # of a new layer


class CrossTransformer(nn.Module):
    """Transformer layers in pairs, one for each sequence: by turns self-attention and attention to the other sequence.

    Args:
        width: Features of a token, a multiple of 4 and of `heads`.
        layers: Number of pairs.
        heads: Of each attention.
    """

    def __init__(self, width: int, *, layers: int, heads: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.norm_in_t = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, heads, cross=index % 2 == 1) for index in range(layers))
        self.layers_t = nn.ModuleList(_Layer(width, heads, cross=index % 2 == 1) for index in range(layers))

    def forward(self, x: Tensor, xt: Tensor, *, bins: int) -> tuple[Tensor, Tensor]:
        """Add positional embeddings and apply all layers.

        Args:
            x: Tokens of the spectrogram, `(B, bins * T, width)`, all frames of a bin in a row.
            xt: Tokens of the samples, `(B, T', width)`.
            bins: Of the spectrogram.

        Returns:
            Both sequences, in the same shapes.
        """
        x = self.norm_in(x) + _positions_2d(x, bins)
        xt = self.norm_in_t(xt) + _positions_1d(xt)
        for layer, layer_t in zip(self.layers, self.layers_t, strict=True):
            x, xt = layer(x, xt), layer_t(xt, x)  # both see the other sequence before this pair of layers
        return x, xt


class _Layer(nn.Module):
    """Attention and a feed-forward network, each with a residual connection, then a normalization over all tokens."""

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
        self.linear1 = nn.Linear(width, EXPANSION * width)
        self.linear2 = nn.Linear(EXPANSION * width, width)
        self.norm_out = _TokensNorm(1, width)
        self.gamma_1 = LayerScale(width, LAYER_SCALE)
        self.gamma_2 = LayerScale(width, LAYER_SCALE)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """`(B, tokens, width)` -> the same shape; `other` is the sequence that cross-attention attends to."""
        if self.cross:
            y, norm = self.cross_attn(self.norm1(x), self.norm2(other)), self.norm3
        else:
            y, norm = self.self_attn(self.norm1(x)), self.norm2
        x = torch.addcmul(x, y, self.gamma_1.scale)
        y = _tokens(map_chunks(self._feed_forward, _maps(norm(x))))
        x = torch.addcmul(x, y, self.gamma_2.scale)
        normed: Tensor = self.norm_out(x)
        return normed

    def _feed_forward(self, x: Tensor) -> Tensor:
        inner = functional.gelu(linear(_tokens(x), self.linear1.weight, self.linear1.bias))
        return _maps(linear(inner, self.linear2.weight, self.linear2.bias))


class _Attention(nn.Module):
    """Multi-head attention, within a sequence or to another one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # of queries, keys and values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """`(B, tokens, width)`, and the sequence to attend to if it is another one -> `(B, tokens, width)`."""
        sources = x, x if other is None else other, x if other is None else other
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = map(linear, sources, weights, biases)
        return linear(attention(query, key, value, self.heads), self.out_proj.weight, self.out_proj.bias)


class _TokensNorm(GroupNorm):
    """Normalizes all features of all tokens of an example together: `(B, tokens, width)` -> the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return _tokens(super().forward(_maps(x)))


def _maps(x: Tensor) -> Tensor:
    """A view of tokens `(B, T, D)` as feature maps `(B, D, 1, T)`."""
    return x.transpose(1, 2).unsqueeze(2)


def _tokens(x: Tensor) -> Tensor:
    """A view of feature maps `(B, D, 1, T)` as tokens `(B, T, D)`."""
    return x.squeeze(2).transpose(1, 2)


def _positions_1d(x: Tensor) -> Tensor:
    """Sinusoidal embeddings `(T, width)` of the positions of tokens `(B, T, width)`: cosines, then sines."""
    _, length, width = x.shape
    waves = torch.arange(width // 2, device=x.device) / (width // 2 - 1)
    phases = torch.arange(length, device=x.device).unsqueeze(1) / MAX_PERIOD**waves
    return torch.cat([phases.cos(), phases.sin()], dim=1)


def _positions_2d(x: Tensor, bins: int) -> Tensor:
    """Sinusoidal embeddings `(bins * T, width)` of the positions of tokens `(B, bins * T, width)`.

    The first half of the features encodes the frame and the second half the bin, sines and cosines alternating.
    """
    _, tokens, width = x.shape
    frames = tokens // bins
    rates = torch.exp(torch.arange(0, width // 2, 2, device=x.device) * (-math.log(MAX_PERIOD) / (width // 2)))

    def waves(count: int) -> Tensor:
        phases = torch.arange(count, device=x.device).unsqueeze(1) * rates
        return torch.stack([phases.sin(), phases.cos()], dim=2).flatten(1)

    frame, bin_ = waves(frames).unsqueeze(0), waves(bins).unsqueeze(1)
    return torch.cat([frame.expand(bins, -1, -1), bin_.expand(-1, frames, -1)], dim=2).flatten(0, 1)
