"""The residual branches of the Demucs families: dilated convolutions along time, in deep layers with memory.

After Défossez, "Hybrid Spectrogram and Waveform Source Separation" (MDX workshop at ISMIR 2021).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._layout import AlongTime, Norm, in_pieces, overwrites

ATTENTION_HEADS, DECAYS = 4, 4
LSTM_FRAMES = 200  # longer inputs are cut
BRANCH_SCALE = 1e-3  # of a fresh residual branch


class LayerScale(nn.Module):
    """Learned factors, one a feature map, for what is added to a residual stream (Touvron et al., 2021)."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), value))


class DConv(nn.Module):
    """Residual branches along time, each with twice the dilation of the one before: `(B, C, F, T)` -> the same shape.

    Every bin is by itself. A branch narrows to `width // compress` feature maps; with `memory` it has an LSTM and
    attention there. The input may be overwritten.
    """

    def __init__(self, width: int, compress: int, *, memory: bool, depth: int = 2) -> None:
        super().__init__()
        hidden = width // compress
        self.layers = nn.ModuleList(
            _Branch(
                AlongTime(width, hidden, 3, dilation=2**index, padding=2**index),
                Norm(1, hidden),
                nn.GELU(),
                *([_Lstm(hidden), _LocalAttention(hidden)] if memory else []),
                AlongTime(hidden, 2 * width, 1),
                Norm(1, 2 * width),
                nn.GLU(1),
                LayerScale(width, BRANCH_SCALE),
            )
            for index in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, f, t = x.shape
        rows = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        for layer in self.layers:
            rows = layer(rows)
        return rows.view(b, f, c, t).transpose(1, 2)


class _Branch(nn.Sequential):
    """Adds to its input `(B, C, 1, T)` what its modules make of it, by the LayerScale at their end."""

    def forward(self, x: Tensor) -> Tensor:
        narrow, norm, bend, *memory, widen, norm_wide, gate, last = self
        y = bend(norm(narrow(x)))
        for step in memory:
            y = step(y.squeeze(2)).unsqueeze(2)
        assert isinstance(widen, AlongTime) and isinstance(norm_wide, Norm) and isinstance(last, LayerScale)
        if overwrites(x) and y.shape[1] < y.shape[3]:
            return _add_gated(x, y, widen, norm_wide, last.scale)
        return torch.addcmul(x, gate(norm_wide(widen(y))), last.scale[:, None, None])


def _add_gated(x: Tensor, hidden: Tensor, widen: AlongTime, norm: Norm, scale: Tensor) -> Tensor:
    """The end of a branch, `x + scale * glu(norm(widen(hidden)))`, without a pass over the wide maps for statistics.

    With w and b the weights of `widen`, the variance of all that it gives is the mean over its maps of their variances
    over time, w Cov(hidden) w', plus the variance of their means. So mean and deviation are known beforehand, and
    what is left to do is one convolution, of `hidden` over the deviation and two maps more, by `scale` times w and b.
    """
    assert widen.bias is not None
    weight, places = widen.weight.squeeze(2), hidden.permute(0, 2, 3, 1).flatten(1, 2)  # (B, T, hidden)
    centre = places.mean(1, keepdim=True)
    away = places - centre
    covariance = away.mT @ away / places.shape[1]
    means = functional.linear(centre.squeeze(1), weight, widen.bias)
    variance = (covariance * (weight.T @ weight / len(weight))).sum((1, 2)) + means.var(1, correction=0)
    factor = torch.rsqrt(variance + norm.eps)
    factors = [factor] * (weight.shape[1] + 1) + [-factor * means.mean(1)]
    hidden = functional.pad(hidden, (0, 0, 0, 0, 0, 2), value=1.0) * torch.stack(factors, 1)[:, :, None, None]
    weight = torch.cat([weight, widen.bias.unsqueeze(1), torch.ones_like(weight[:, :1])], 1) * norm.weight.unsqueeze(1)
    (weight, gate_weight), (bias, gate_bias) = weight[:, :, None, None].chunk(2), norm.bias.chunk(2)
    weight, bias = weight * scale[:, None, None, None], bias * scale

    def add(x: Tensor, hidden: Tensor) -> Tensor:
        gate = functional.conv2d(hidden, gate_weight, gate_bias).sigmoid_()
        return torch.addcmul(x, functional.conv2d(hidden, weight, bias), gate)

    return in_pieces(add, x, hidden)


class _Lstm(nn.Module):
    """A bidirectional LSTM of two layers, added to its input: `(B, C, T)` -> the same shape.

    Inputs longer than LSTM_FRAMES are cut into pieces of that length that overlap by half. Of every piece the middle
    half is kept, and the outer quarters where there is no neighbour.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, t = x.shape
        if t <= LSTM_FRAMES:
            return x + self._run(x.permute(2, 0, 1)).permute(1, 2, 0)
        hop, edge = LSTM_FRAMES // 2, LSTM_FRAMES // 4
        pieces = math.ceil(t / hop)
        padded = functional.pad(x, (0, (pieces + 1) * hop - t)).unfold(2, LSTM_FRAMES, hop)  # (B, C, pieces, frames)
        y = self._run(padded.permute(3, 0, 2, 1).flatten(1, 2))
        y = y.reshape(LSTM_FRAMES, b, pieces, -1)
        middle = y[edge:-edge].permute(1, 3, 2, 0).flatten(2)
        first, last = (part.permute(1, 2, 0) for part in (y[:edge, :, 0], y[-edge:, :, -1]))
        return x + torch.cat([first, middle, last], dim=2)[..., :t]

    def _run(self, x: Tensor) -> Tensor:
        """`(T, B, C)` -> the same shape."""
        if x.is_cpu:  # in full precision: oneDNN has no LSTM in bfloat16 on processors without AVX-512
            with torch.autocast("cpu", enabled=False):
                x = self.lstm(x.float())[0]
        else:
            x = self.lstm(x)[0]
        y: Tensor = self.linear(x)
        return y


class _LocalAttention(nn.Module):
    """Attention that fades with distance, at rates that each query chooses: `(B, C, T)` -> the same shape.

    It has no embedding of positions. No frame attends to itself: that is what the residual stream carries.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Conv1d(width, width, 1)
        self.query = nn.Conv1d(width, width, 1)
        self.key = nn.Conv1d(width, width, 1)
        self.query_decay = nn.Conv1d(width, ATTENTION_HEADS * DECAYS, 1)
        self.proj = nn.Conv1d(width, width, 1)
        with torch.no_grad():  # start with a wide view
            self.query_decay.weight *= 0.01
            self.query_decay.bias.fill_(-2)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, decay = (
            layer(x).unflatten(1, (ATTENTION_HEADS, -1)).transpose(2, 3)  # (B, heads, T, C / heads)
            for layer in (self.query, self.key, self.content, self.query_decay)
        )
        rates = torch.arange(1, DECAYS + 1, device=x.device, dtype=x.dtype) / (2 * math.sqrt(DECAYS))
        slope = torch.sigmoid(decay) @ rates  # (B, heads, T)
        place = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
        bias = -slope.unsqueeze(3) * (place[:, None] - place).abs()
        # Where query and key are of the same frame the score, bias included, is to be -100.
        own = (query * key).sum(3) / math.sqrt(query.shape[3])
        bias = bias.diagonal_scatter(-100 - own, dim1=2, dim2=3)
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.proj(y.transpose(2, 3).flatten(1, 2))
        return x + mixed
