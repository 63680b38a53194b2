"""PyTorch's layers, arranged so that a CPU runs them fast: convolutions, normalization, linear maps and attention.

Feature maps are `(B, C, F, T)`; those of samples have F = 1. In memory the features of a position lie side by side,
PyTorch's `channels_last`. So no convolution copies its input to another layout, and those with few feature maps, of
which there are many here, take a tenth of the time.

On a CPU, memory can cost more than arithmetic. The outermost feature maps have 33 MB. Fresh memory of that size comes
from the system page by page, which can take longer than computing its contents; a few MB are reused, and fit the cache.
So steps that work on each position by itself, or on a few neighbours, are done in chunks, and overwrite their input
where they can. While gradients are recorded, and on other devices, there is one chunk and nothing is overwritten.

PyTorch leaves matrix products to BLAS and convolutions to oneDNN, which can be twice as fast: on two cores of a Zen 5,
where MKL does without AVX-512, tokens times 512 x 2048 weights took 195 GFLOP/s by `torch.nn.functional.linear` and 430
by a convolution; attention over 2688 tokens took 170 by `scaled_dot_product_attention` and 290 by convolutions. On one
core of a Zen 3, without AVX-512, the latter took twice as long as the former instead, over 801 tokens and 2688. Tokens
`(B, T, D)`, seen as D maps of height one, are in the layout that oneDNN prefers, so nothing is copied. The results are
the same but for rounding.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK_SIZE = 2**20  # values in the input of a step, 4 MB; half or twice as many are as fast
SCORES_AT_ONCE = 2**20  # of attention: 4 MB, which stay in the cache
MIN_BLOCKED = 256  # tokens: attention over fewer is too little work for a product of each head


def to_channels_last(x: Tensor) -> Tensor:
    """`(B, C, F, T)` in `channels_last`, copied if it was in another layout.

    The view only puts the strides of axes of length one in order. Where they are not, convolutions take the layout for
    another one and copy their input.
    """
    positions = x.permute(0, 2, 3, 1).contiguous()
    return positions.view(positions.shape).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """A convolution along frequency and time: `(B, C, F, T)` -> `(B, C', F', T')`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(to_channels_last(x))


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution along frequency and time: `(B, C, F, T)` -> `(B, C', F', T')`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(to_channels_last(x), output_size)


class TimeConv(nn.Conv1d):
    """A convolution along time, of every bin by itself: `(B, C, F, T)` -> `(B, C', F, T')`."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(
            to_channels_last(x),
            self.weight.unsqueeze(2),
            self.bias,
            stride=(1, *self.stride),
            padding=(0, int(self.padding[0])),
            dilation=(1, *self.dilation),
        )


class TimeConvTranspose(nn.ConvTranspose1d):
    """A transposed convolution along time, of every bin by itself: `(B, C, F, T)` -> `(B, C', F, T')`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        x = to_channels_last(x)
        return functional.conv_transpose2d(x, self.weight.unsqueeze(2), self.bias, stride=(1, *self.stride))


class GroupNorm(nn.GroupNorm):
    """A group normalization that is as accurate in `channels_last` as in PyTorch's default layout.

    In `channels_last`, PyTorch computes the variance as the difference of two means in single precision, which leaves
    too few digits for feature maps that are nearly constant, such as those of silence.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.num_groups > 1:
            return super().forward(x.contiguous())
        positions = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(positions, positions.shape[1:], eps=self.eps)
        return torch.addcmul(self.bias, normed, self.weight).permute(0, 3, 1, 2)


def may_overwrite(x: Tensor) -> bool:
    """Whether steps on `x` are done in chunks and may overwrite it: on a CPU, while no gradients are recorded."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def map_chunks(step: Callable[..., Tensor], x: Tensor, *more: Tensor, chunked: bool = True) -> Tensor:
    """Apply a step that treats every position by itself.

    Args:
        step: Maps chunks of all inputs to an output of the shape of the first.
        x: The first input, `(B, C, F, T)`; it may be overwritten with the result.
        more: Further inputs, with the same B, F and T.
        chunked: False for one chunk, as a step with statistics over all positions needs.

    Returns:
        A tensor of the shape of `x`.
    """
    count = _chunk_count(x) if chunked else 1
    if count == 1:
        return step(x, *more)
    axis = next((axis for axis in (0, 2) if x.shape[axis] >= count), 3)  # the outermost: chunks are the least scattered
    for chunk, *others in zip(*(y.tensor_split(count, axis) for y in (x, *more)), strict=True):
        chunk.copy_(step(chunk, *others))
    return x


def map_chunks_with_context(
    step: Callable[..., Tensor], *inputs: Tensor, axis: int, context: int, chunked: bool = True
) -> Tensor:
    """Apply a step that needs neighbours along one axis, with zeros beyond the ends of the inputs.

    Args:
        step: Maps chunks of all inputs to an output that is `2 * context` shorter along `axis`.
        inputs: `(B, C, F, T)`, of one shape.
        axis: 2 for frequency, 3 for time.
        context: Neighbours needed on either side.
        chunked: False for one chunk, as a step with statistics over all positions needs.

    Returns:
        The outputs, joined: as long along `axis` as the inputs.
    """
    length, count = inputs[0].shape[axis], _chunk_count(inputs[0]) if chunked else 1
    outputs = []
    for index in range(count):
        start, end = index * length // count - context, (index + 1) * length // count + context
        low, high = max(start, 0), min(end, length)
        padding = (0, 0) * (3 - axis) + (low - start, end - high)
        outputs.append(step(*(functional.pad(x.narrow(axis, low, high - low), padding) for x in inputs)))
    return outputs[0] if count == 1 else torch.cat(outputs, axis)


def _chunk_count(x: Tensor) -> int:
    return -(-x.numel() // CHUNK_SIZE) if may_overwrite(x) else 1


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map of every token, `x @ weight.T + bias`.

    Args:
        x: `(B, T, D)`.
        weight: `(D', D)`.
        bias: `(D')`.

    Returns:
        `(B, T, D')`.
    """
    if not _convolutions_are_faster(x):
        return functional.linear(x, weight, bias)
    y = functional.conv2d(x.transpose(1, 2).unsqueeze(2), weight[:, :, None, None], bias)
    return y.squeeze(2).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of several heads (Vaswani et al., "Attention is all you need", 2017).

    Args:
        query: `(B, T, D)`, the heads side by side in D.
        key: `(B, T', D)`.
        value: `(B, T', D)`.
        heads: Divides D.

    Returns:
        `(B, T, D)`.
    """
    blocked = _convolutions_are_faster(query) and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if torch.is_grad_enabled() or not blocked or key.shape[1] < MIN_BLOCKED:
        query, key, value = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    mixed = torch.empty_like(query)
    key = key / math.sqrt(query.shape[2] // heads)
    for out, queries, keys, values in zip(mixed, query, key, value, strict=True):
        by_head = (x.tensor_split(heads, dim=1) for x in (out, queries, keys))
        for head in zip(*by_head, values.T.contiguous().tensor_split(heads), strict=True):
            _attend(*head)
    return mixed


def _attend(out: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
    """One head of one example: `out` and `query` are `(T, D)`, `key` `(T', D)` and scaled, `value` `(D, T')`."""
    count = -(-len(query) * len(key) // SCORES_AT_ONCE)
    for rows, queries in zip(out.tensor_split(count), query.tensor_split(count), strict=True):
        scores = linear(queries.unsqueeze(0), key)
        rows.copy_(linear(scores.softmax(2), value)[0])


def _convolutions_are_faster(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
