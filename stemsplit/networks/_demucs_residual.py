"""The residual branches of the Demucs families: dilated convolutions along time; in deep layers an LSTM and attention.

Défossez, "Hybrid Spectrogram and Waveform Source Separation" (MDX workshop at ISMIR 2021). Modules are named as in
the published checkpoints.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._layers import GroupNorm, TimeConv, map_chunks, may_overwrite

ATTENTION_HEADS = 4
DECAYS = 4  # penalties for distance that each query of an attention head mixes
LSTM_FRAMES = 200  # longer inputs are cut
LAYER_SCALE = 1e-3  # of a new branch


class LayerScale(nn.Module):
    """A learned factor for each feature map of a residual branch.

    Touvron et al., "Going deeper with image transformers" (ICCV 2021).

    Args:
        width: Number of feature maps.
        value: All factors of a new network.
    """

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), value))


class DConv(nn.Module):
    """Residual branches in sequence, each with twice the dilation of the one before; every bin is by itself.

    Args:
        width: Feature maps of the input.
        compress: A branch narrows to `width // compress` feature maps.
        lstm: Whether the branches contain an LSTM and local attention, at that width.
        depth: Number of branches.
    """

    def __init__(self, width: int, compress: int, *, lstm: bool, depth: int = 2) -> None:
        super().__init__()
        hidden = width // compress
        self.layers = nn.ModuleList(
            _Branch(
                TimeConv(width, hidden, 3, dilation=2**index, padding=2**index),
                GroupNorm(1, hidden),
                nn.GELU(),
                *([_BLSTM(hidden), _LocalAttention(hidden)] if lstm else []),
                TimeConv(hidden, 2 * width, 1),
                GroupNorm(1, 2 * width),
                nn.GLU(1),
                LayerScale(width, LAYER_SCALE),
            )
            for index in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, width, F, T)` -> the same shape; the input may be overwritten."""
        b, c, f, t = x.shape
        rows = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        for layer in self.layers:
            rows = layer(rows)
        return rows.view(b, f, c, t).transpose(1, 2)


class _Branch(nn.Sequential):
    """A residual branch on `(B, C, 1, T)`: its input plus the output of its layers, scaled by the last one."""

    def forward(self, x: Tensor) -> Tensor:
        narrow, norm, activation, *recurrent, widen, wide_norm, glu, layer_scale = self
        y = activation(norm(narrow(x)))
        for layer in recurrent:
            y = layer(y.squeeze(2)).unsqueeze(2)
        assert isinstance(widen, TimeConv) and isinstance(wide_norm, GroupNorm) and isinstance(layer_scale, LayerScale)
        if may_overwrite(x) and y.shape[1] < y.shape[3]:
            return _add_gated(x, y, widen, wide_norm, layer_scale.scale)
        return torch.addcmul(x, glu(wide_norm(widen(y))), layer_scale.scale[:, None, None])


def _add_gated(x: Tensor, hidden: Tensor, widen: TimeConv, norm: GroupNorm, scale: Tensor) -> Tensor:
    """`x + scale * glu(norm(widen(hidden)))`, without a pass over the wide feature maps for their statistics.

    Let w and b be the weights and biases of `widen`. The variance over all of its output is the mean over its maps of
    their variance over time, w Cov(hidden) w^T, plus the variance of their means w mean(hidden) + b. So the mean and
    the deviation are known from `hidden` alone, and convolution and normalization become one convolution: of `hidden`
    divided by the deviation, with two more maps for the bias and the mean.
    """
    assert widen.bias is not None
    weight, frames = widen.weight.squeeze(2), hidden.permute(0, 2, 3, 1).flatten(1, 2)  # frames: (B, T, hidden)
    centre = frames.mean(1, keepdim=True)
    deviations = frames - centre
    covariance = deviations.mT @ deviations / frames.shape[1]
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

    return map_chunks(add, x, hidden)


class _BLSTM(nn.Module):
    """A bidirectional LSTM of two layers with a residual connection: `(B, C, T)` -> the same shape.

    Inputs longer than LSTM_FRAMES are cut into segments of that length that overlap by half. The middle half of each
    segment is kept, and the outer quarters at the two ends of the input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, t = x.shape
        if t <= LSTM_FRAMES:
            return x + self._run(x.permute(2, 0, 1)).permute(1, 2, 0)
        hop, quarter = LSTM_FRAMES // 2, LSTM_FRAMES // 4
        count = math.ceil(t / hop)
        padded = functional.pad(x, (0, (count + 1) * hop - t)).unfold(2, LSTM_FRAMES, hop)  # (B, C, segments, frames)
        y = self._run(padded.permute(3, 0, 2, 1).flatten(1, 2))
        y = y.reshape(LSTM_FRAMES, b, count, -1)
        middle = y[quarter:-quarter].permute(1, 3, 2, 0).flatten(2)
        first, last = (part.permute(1, 2, 0) for part in (y[:quarter, :, 0], y[-quarter:, :, -1]))
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
    """Attention with a learned penalty for distance, and a residual connection: `(B, C, T)` -> the same shape.

    Each query chooses how fast the weight of other frames falls with their distance. There is no positional embedding.
    No frame attends to itself, as the residual connection passes it on.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Conv1d(width, width, 1)
        self.query = nn.Conv1d(width, width, 1)
        self.key = nn.Conv1d(width, width, 1)
        self.query_decay = nn.Conv1d(width, ATTENTION_HEADS * DECAYS, 1)
        self.proj = nn.Conv1d(width, width, 1)
        with torch.no_grad():  # a new layer looks far
            self.query_decay.weight *= 0.01
            self.query_decay.bias.fill_(-2)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, decay = (
            layer(x).unflatten(1, (ATTENTION_HEADS, -1)).transpose(2, 3)  # (B, heads, T, C / heads)
            for layer in (self.query, self.key, self.content, self.query_decay)
        )
        rates = torch.arange(1, DECAYS + 1, device=x.device, dtype=x.dtype) / (2 * math.sqrt(DECAYS))
        slope = torch.sigmoid(decay) @ rates  # (B, heads, T)
        frame = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
        bias = -slope.unsqueeze(3) * (frame[:, None] - frame).abs()
        # The score of a frame with itself, bias included, is to be -100.
        own = (query * key).sum(3) / math.sqrt(query.shape[3])
        bias = bias.diagonal_scatter(-100 - own, dim1=2, dim2=3)
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.proj(y.transpose(2, 3).flatten(1, 2))
        return x + mixed
