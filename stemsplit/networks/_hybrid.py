"""What the hybrid Demucs families share: two U-Nets, on the spectrogram and on the samples, whose outputs add up.

The one on the spectrogram narrows frequency only. Its frames are as many as the steps of the other once that has been
narrowed as often, so that the two can exchange what they know. After Défossez, "Hybrid Spectrogram and Waveform Source
Separation" (MDX workshop at ISMIR 2021).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks._demucs import GROUPS, KERNEL, STRIDE, Decoder, Encoder, Step, rescale, standardize

EMBEDDING_WEIGHT, EMBEDDING_SCALE = 0.2, 10.0  # how much it counts; how much faster it is to learn
BANDED_LAYERS = 2


class HybridNetwork(nn.Module):
    """The two U-Nets, the transforms around them, and the wires between them.

    Args:
        n_fft: of an STFT with four frames over every sample, one a hop of the input.
        width: feature maps after the first layer; every further one doubles them.
        depth: layers of the encoder on the spectrogram, and of its decoder.
        compress: how many times narrower the residual branches are.
        norm_starts, memory_starts: the first layers with normalisations, and with an LSTM and attention.
        decoder_branches: whether layers of the decoders have residual branches too.
        magnitude: the spectrogram has magnitudes, and the mixture's phase is used again; otherwise it has real and
            imaginary parts, in and out.
        bands: where to split the spectrum for the outermost layers, as shares of it, ascending.
        zero_padding: the STFT sees zeros before and after the signal instead of its mirror image, and what comes from
            the spectrogram is 1.5 hops late. Some checkpoints were trained like this.
    """

    def __init__(
        self,
        *,
        stems: int,
        channels: int,
        n_fft: int,
        width: int,
        depth: int,
        compress: int,
        norm_starts: int,
        memory_starts: int,
        decoder_branches: bool = False,
        magnitude: bool = False,
        bands: Sequence[float] = (),
        zero_padding: bool = False,
    ) -> None:
        super().__init__()
        self.stems, self.magnitude, self.zero_padding = stems, magnitude, zero_padding
        self.stft = Stft(n_fft, n_fft // 4)
        self.encoder, self.tencoder = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.tdecoder = nn.ModuleList(), nn.ModuleList()
        inner, inner_t, bins = channels if magnitude else 2 * channels, channels, n_fft // 2
        for index in range(depth):
            outer, first, merges = width * 2**index, index == 0, 1 < bins <= KERNEL
            back, back_t = (stems * inner, stems * inner_t) if first else (inner, inner_t)
            groups = GROUPS if index >= norm_starts else 0
            step_t = Step(False, groups=groups, compress=compress, memory=index >= memory_starts)
            if bins > 1:
                step = replace(step_t, frequency=True)
                if merges:
                    step = replace(step, kernel=bins, padding=0)
                self.tencoder.append(Encoder(inner_t, outer, step_t, bare=merges))
                self.tdecoder.insert(
                    0, Decoder(outer, back_t, step_t, last=first, branches=decoder_branches, bare=merges)
                )
            else:
                step = replace(step_t, kernel=4, stride=2, padding=1)
            if index < BANDED_LAYERS and bands:
                self.encoder.append(_BandedEncoder(inner, outer, step, bins=bins, bands=bands))
                self.decoder.insert(0, _BandedDecoder(outer, back, step, last=first, bins=bins // STRIDE, bands=bands))
            else:
                self.encoder.append(Encoder(inner, outer, step))
                self.decoder.insert(0, Decoder(outer, back, step, last=first, branches=decoder_branches))
            if first:
                self.freq_emb = _Embedding(bins // STRIDE, width)
            inner = inner_t = outer
            bins = 1 if merges else bins // STRIDE
        rescale(self)

    def forward(self, mix: Tensor) -> Tensor:
        """Mixture `(B, C, N)` -> stems `(B, S, C, N)`."""
        length = mix.shape[-1]
        spectrum = self._spectrum(mix)
        x, mean, deviation = standardize(self._features(spectrum))
        xt, mean_t, deviation_t = standardize(mix.unsqueeze(2))
        x, xt = self._networks(x, xt)
        xt = torch.addcmul(mean_t, xt.float(), deviation_t)
        # Stem by stem, as all spectra of all stems take 44 MB in every step of the inverse.
        stems = (torch.addcmul(mean, stem.float(), deviation) for stem in x.chunk(self.stems, dim=1))
        samples = torch.stack([self._samples(stem, spectrum, length) for stem in stems], dim=1)
        return samples + xt.reshape(len(mix), self.stems, -1, length)

    def between(self, x: Tensor, xt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What goes from the encoders to the decoders besides the skip connections: here nothing."""
        return None, None

    def _networks(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(B, C', F, T)` and samples `(B, C, 1, N)`, scaled -> the same of all stems side by side."""
        skips: list[tuple[Tensor, int]] = []  # with the lengths of what they were made from
        skips_t: list[tuple[Tensor | None, int]] = []
        for index, layer in enumerate(self.encoder):
            length, inject = x.shape[-1], None
            if index < len(self.tencoder):
                length_t, layer_t = xt.shape[-1], self.tencoder[index]
                xt = layer_t(xt)
                if layer_t.bare:
                    inject = xt
                skips_t.append((None if layer_t.bare else xt, length_t))
            x = layer(x, inject)
            if index == 0:
                x = self.freq_emb(x)
            skips.append((x, length))
        y, yt = self.between(x, xt)
        del x, xt
        split = len(self.decoder) - len(self.tdecoder)
        for index, layer in enumerate(self.decoder):
            y, inside = layer(y, *skips.pop())
            if index >= split:
                layer_t = self.tdecoder[index - split]
                yt, _ = layer_t(inside if layer_t.bare else yt, *skips_t.pop())
        assert y is not None and yt is not None
        return y, yt

    def _spectrum(self, mix: Tensor) -> Tensor:
        """`(B, C, N)` -> `(B, C, F, T)` complex of unit norm, without the highest bin, T = ceil(N / hop)."""
        frames = -(-mix.shape[-1] // self.stft.hop)
        margin = self.stft.hop * 3 // 2
        after = margin + frames * self.stft.hop - mix.shape[-1]
        mix = mix / math.sqrt(self.stft.n_fft)
        padded = functional.pad(mix, (margin, after)) if self.zero_padding else _mirror(mix, margin, after)
        spectrum: Tensor = self.stft(padded)
        return spectrum[..., :-1, 2 : 2 + frames]

    def _features(self, spectrum: Tensor) -> Tensor:
        """Real and imaginary part of every channel, or its magnitude: `(B, C', F, T)`."""
        features = spectrum.abs().unsqueeze(2) if self.magnitude else torch.view_as_real(spectrum).movedim(4, 2)
        return features.flatten(1, 2)

    def _samples(self, features: Tensor, spectrum: Tensor, length: int) -> Tensor:
        """The inverse of both for one stem of the mixture that has `spectrum`: `(B, C', F, T)` -> `(B, C, length)`."""
        if self.magnitude:
            complex_ = torch.polar(features, spectrum.angle())
        else:
            complex_ = torch.complex(features[:, ::2], features[:, 1::2])
        start = 0 if self.zero_padding else self.stft.hop * 3 // 2
        samples = self.stft.inverse(functional.pad(complex_, (2, 2, 0, 1)), start + length)
        return samples[..., start:] * math.sqrt(self.stft.n_fft)


class _Embedding(nn.Module):
    """Adds to every bin what is learned about its place: `(B, width, F, T)` -> the same shape."""

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(bins, width, _weight=torch.empty(bins, width))
        weight = self.embedding.weight
        if weight.is_meta:  # nothing to fill, and trying to would import a compiler, for a second
            return
        with torch.no_grad():  # start smooth: a random walk, with the same spread everywhere
            walk = weight.normal_().cumsum(0) / torch.arange(1, bins + 1).sqrt().unsqueeze(1)
            weight.copy_(walk / EMBEDDING_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.embedding.weight.T.unsqueeze(2), alpha=EMBEDDING_WEIGHT * EMBEDDING_SCALE)


class _BandedEncoder(nn.Module):
    """Encoder layers side by side, one a band of the spectrum, that see a little of each other's bands."""

    def __init__(self, inner: int, outer: int, step: Step, *, bins: int, bands: Sequence[float]) -> None:
        super().__init__()
        self.margin, self.edges = step.padding, [0]
        for share in bands:
            room = round(bins * share) + step.padding - self.edges[-1] * step.stride - step.kernel
            self.edges.append(self.edges[-1] + round(room / step.stride + 1))
        self.edges.append(bins // step.stride)
        _check_edges(self.edges)
        self.layers = nn.ModuleList(Encoder(inner, outer, replace(step, padding=0)) for _ in pairwise(self.edges))

    def forward(self, x: Tensor, inject: None = None) -> Tensor:
        x = functional.pad(x, (0, 0, self.margin, self.margin))
        pieces = zip(self.layers, pairwise(self.edges), strict=True)
        overlap = KERNEL - STRIDE
        return torch.cat([layer(x[:, :, STRIDE * a : STRIDE * b + overlap]) for layer, (a, b) in pieces], dim=2)


class _BandedDecoder(nn.Module):
    """The mirror: what decoder layers give for their bands is added where it overlaps."""

    def __init__(self, inner: int, outer: int, step: Step, *, last: bool, bins: int, bands: Sequence[float]) -> None:
        super().__init__()
        self.margin, self.last = step.padding, last
        self.edges = [0, *(round(bins * share) for share in bands), bins]
        _check_edges(self.edges)
        self.layers = nn.ModuleList(
            Decoder(inner, outer, step, last=last, context=(0, 1)) for _ in pairwise(self.edges)
        )

    def forward(self, x: Tensor, skip: Tensor, length: int) -> tuple[Tensor, None]:
        total: Tensor | None = None
        overlap, rows = KERNEL - STRIDE, STRIDE * self.edges[-1]
        for layer, (a, b) in zip(self.layers, pairwise(self.edges), strict=True):
            assert isinstance(layer, Decoder) and isinstance(layer.conv_tr, nn.ConvTranspose2d)
            y = layer.conv_tr(layer.inside(x[:, :, a:b], skip[:, :, a:b]))
            if a and layer.conv_tr.bias is not None:  # the band below has added its own
                y[:, :, :overlap] -= layer.conv_tr.bias[:, None, None]
            place = (0, 0, STRIDE * a, rows - STRIDE * b)
            y = functional.pad(y, place)
            total = y if total is None else total + y
        assert total is not None
        total = total[:, :, self.margin : rows + overlap - self.margin]
        return total if self.last else functional.gelu(total), None


def _check_edges(edges: Sequence[int]) -> None:
    if not all(below < above for below, above in pairwise(edges)):
        raise ValueError(f"bands are too narrow: they would end at bins {edges}")


def _mirror(x: Tensor, before: int, after: int) -> Tensor:
    """Pad the last dimension with its mirror image; a signal too short for that gets some zeros first."""
    missing = max(0, max(before, after) - x.shape[-1] + 1)
    right = min(after, missing)
    left = missing - right
    return functional.pad(functional.pad(x, (left, right)), (before - left, after - right), mode="reflect")
