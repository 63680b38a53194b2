"""The base of the hybrid Demucs families: two U-Nets, on the spectrogram and on the samples, whose outputs are summed.

The U-Net on the spectrogram strides along frequency, the one on the samples along time. Between their encoders and
decoders they exchange information, each family in its way (`hdemucs`, `htdemucs`). Défossez, "Hybrid Spectrogram and
Waveform Source Separation" (MDX workshop at ISMIR 2021).

Modules are named as in the published checkpoints; a `t`, in variables too, marks the U-Net on the samples (time).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks._demucs_layers import (
    GROUPS,
    KERNEL,
    STRIDE,
    DecoderLayer,
    EncoderLayer,
    LayerSettings,
    rescale,
    standardize,
)

EMBEDDING_WEIGHT = 0.2  # of the frequency embedding, when it is added
EMBEDDING_SCALE = 10.0  # its weights are stored divided by this, so that they learn faster
BANDED_LAYERS = 2


class HybridNetwork(nn.Module):
    """The two U-Nets, the transforms around them, and the exchange between them.

    Args:
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
        n_fft: Samples of an STFT frame; the hop is a quarter of it.
        width: Feature maps after the first layer; every further one doubles them.
        depth: Layers of the encoder on the spectrogram, and of its decoder.
        compress: How many times narrower the residual branches are.
        norm_starts: The first layer with normalizations.
        memory_starts: The first layer whose residual branches have an LSTM and attention.
        decoder_residual: Whether layers of the decoders have residual branches too.
        magnitude: Whether the spectrogram is one of magnitudes, and stems have the mixture's phase; otherwise it has
            real and imaginary parts, in and out.
        bands: Where to split the spectrum for the outermost layers, as fractions of it, ascending.
        zero_padding: Pad the signal with zeros before the STFT, not by reflection, and leave the spectrogram's output
            1.5 hops late. Some checkpoints were trained like this.

    Attributes:
        standardized: Songs are standardized as a whole, and each window by the network once more.

    Raises:
        ValueError: Bands are too narrow.
    """

    standardized = True

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
        decoder_residual: bool = False,
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
            # A layer that brings frequency to one bin merges the branches: the time branch ends with a convolution.
            outer, first, merges = width * 2**index, index == 0, 1 < bins <= KERNEL
            out, out_t = (stems * inner, stems * inner_t) if first else (inner, inner_t)  # of the decoders
            groups = GROUPS if index >= norm_starts else 0
            settings_t = LayerSettings(False, groups=groups, compress=compress, lstm=index >= memory_starts)
            if bins > 1:
                settings = replace(settings_t, frequency=True)
                if merges:
                    settings = replace(settings, kernel=bins, padding=0)
                self.tencoder.append(EncoderLayer(inner_t, outer, settings_t, conv_only=merges))
                self.tdecoder.insert(
                    0,
                    DecoderLayer(outer, out_t, settings_t, last=first, residual=decoder_residual, conv_only=merges),
                )
            else:
                settings = replace(settings_t, kernel=4, stride=2, padding=1)
            if index < BANDED_LAYERS and bands:
                self.encoder.append(_BandedEncoderLayer(inner, outer, settings, bins=bins, bands=bands))
                self.decoder.insert(
                    0, _BandedDecoderLayer(outer, out, settings, last=first, bins=bins // STRIDE, bands=bands)
                )
            else:
                self.encoder.append(EncoderLayer(inner, outer, settings))
                self.decoder.insert(0, DecoderLayer(outer, out, settings, last=first, residual=decoder_residual))
            if first:
                self.freq_emb = _FrequencyEmbedding(bins // STRIDE, width)
            inner = inner_t = outer
            bins = 1 if merges else bins // STRIDE
        rescale(self)

    def forward(self, mix: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mix: `(B, C, N)`, of any length.

        Returns:
            Stems `(B, S, C, N)`.
        """
        length = mix.shape[-1]
        spectrum = self._spectrum(mix)
        x, mean, deviation = standardize(self._features(spectrum))
        xt, mean_t, deviation_t = standardize(mix.unsqueeze(2))
        x, xt = self._run_unets(x, xt)
        xt = torch.addcmul(mean_t, xt.float(), deviation_t)
        # Stem by stem: the spectra of all stems would take 44 MB in every step of the inverse.
        stems = (torch.addcmul(mean, stem.float(), deviation) for stem in x.chunk(self.stems, dim=1))
        samples = torch.stack([self._samples(stem, spectrum, length) for stem in stems], dim=1)
        return samples + xt.reshape(len(mix), self.stems, -1, length)

    def bottleneck(self, x: Tensor, xt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the decoders get from the encoders besides the skip connections: nothing, unless a family overrides it.

        Args:
            x: Output of the spectrogram's encoder, `(B, C', F, T)`.
            xt: Output of the samples' encoder, `(B, C', 1, T')`.

        Returns:
            Inputs of the two decoders, of the same shapes; None counts as zero.
        """
        return None, None

    def _run_unets(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Standardized features `(B, C', F, T)` and samples `(B, C, 1, N)` -> those of all stems, along axis 1."""
        skips: list[tuple[Tensor, int]] = []  # each with the length of its layer's input
        skips_t: list[tuple[Tensor | None, int]] = []
        for index, layer in enumerate(self.encoder):
            length, inject = x.shape[-1], None
            if index < len(self.tencoder):
                length_t, layer_t = xt.shape[-1], self.tencoder[index]
                xt = layer_t(xt)
                if layer_t.conv_only:
                    inject = xt
                skips_t.append((None if layer_t.conv_only else xt, length_t))
            x = layer(x, inject)
            if index == 0:
                x = self.freq_emb(x)
            skips.append((x, length))
        y, yt = self.bottleneck(x, xt)
        del x, xt
        split = len(self.decoder) - len(self.tdecoder)
        for index, layer in enumerate(self.decoder):
            y, hidden = layer(y, *skips.pop())
            if index >= split:
                layer_t = self.tdecoder[index - split]
                yt, _ = layer_t(hidden if layer_t.conv_only else yt, *skips_t.pop())
        assert y is not None and yt is not None
        return y, yt

    def _spectrum(self, mix: Tensor) -> Tensor:
        """The orthonormal STFT `(B, C, F, T)` of `(B, C, N)`, without the highest bin; T = ceil(N / hop)."""
        frames = -(-mix.shape[-1] // self.stft.hop)
        margin = self.stft.hop * 3 // 2
        after = margin + frames * self.stft.hop - mix.shape[-1]
        mix = mix / math.sqrt(self.stft.n_fft)
        padded = functional.pad(mix, (margin, after)) if self.zero_padding else _reflect_pad(mix, margin, after)
        spectrum: Tensor = self.stft(padded)
        return spectrum[..., :-1, 2 : 2 + frames]

    def _features(self, spectrum: Tensor) -> Tensor:
        """The magnitude of every channel, or its real and imaginary parts: `(B, C', F, T)`."""
        features = spectrum.abs().unsqueeze(2) if self.magnitude else torch.view_as_real(spectrum).movedim(4, 2)
        return features.flatten(1, 2)

    def _samples(self, features: Tensor, spectrum: Tensor, length: int) -> Tensor:
        """Features `(B, C', F, T)` of a stem -> samples `(B, C, length)`; `spectrum` is the mixture's."""
        if self.magnitude:
            complex_ = torch.polar(features, spectrum.angle())
        else:
            complex_ = torch.complex(features[:, ::2], features[:, 1::2])
        start = 0 if self.zero_padding else self.stft.hop * 3 // 2
        samples = self.stft.inverse(functional.pad(complex_, (2, 2, 0, 1)), start + length)
        return samples[..., start:] * math.sqrt(self.stft.n_fft)


class _FrequencyEmbedding(nn.Module):
    """Adds a learned embedding of its frequency to every bin: `(B, width, F, T)` -> the same shape, in place."""

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(bins, width, _weight=torch.empty(bins, width))
        weight = self.embedding.weight
        if weight.is_meta:  # nothing to fill, and filling would take a second to import a compiler
            return
        with torch.no_grad():  # start smooth along frequency: a random walk, scaled to the same variance everywhere
            walk = weight.normal_().cumsum(0) / torch.arange(1, bins + 1).sqrt().unsqueeze(1)
            weight.copy_(walk / EMBEDDING_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.embedding.weight.T.unsqueeze(2), alpha=EMBEDDING_WEIGHT * EMBEDDING_SCALE)


class _BandedEncoderLayer(nn.Module):
    """Encoder layers side by side, one for each band of the spectrum, whose inputs overlap at the band edges."""

    def __init__(self, inner: int, outer: int, settings: LayerSettings, *, bins: int, bands: Sequence[float]) -> None:
        super().__init__()
        self.padding = settings.padding
        self.edges = [0]  # bins of the output
        for fraction in bands:
            span = round(bins * fraction) + settings.padding - self.edges[-1] * settings.stride - settings.kernel
            self.edges.append(self.edges[-1] + round(span / settings.stride + 1))
        self.edges.append(bins // settings.stride)
        _check_edges(self.edges)
        unpadded = replace(settings, padding=0)
        self.layers = nn.ModuleList(EncoderLayer(inner, outer, unpadded) for _ in pairwise(self.edges))

    def forward(self, x: Tensor, inject: None = None) -> Tensor:
        x = functional.pad(x, (0, 0, self.padding, self.padding))
        overlap = KERNEL - STRIDE
        bands = zip(self.layers, pairwise(self.edges), strict=True)
        return torch.cat([layer(x[:, :, STRIDE * a : STRIDE * b + overlap]) for layer, (a, b) in bands], dim=2)


class _BandedDecoderLayer(nn.Module):
    """Decoder layers side by side, one for each band, whose outputs are added where they overlap."""

    def __init__(
        self, inner: int, outer: int, settings: LayerSettings, *, last: bool, bins: int, bands: Sequence[float]
    ) -> None:
        super().__init__()
        self.padding, self.last = settings.padding, last
        self.edges = [0, *(round(bins * fraction) for fraction in bands), bins]  # bins of the input
        _check_edges(self.edges)
        self.layers = nn.ModuleList(
            DecoderLayer(inner, outer, settings, last=last, context=(0, 1)) for _ in pairwise(self.edges)
        )

    def forward(self, x: Tensor, skip: Tensor, length: int) -> tuple[Tensor, None]:
        total: Tensor | None = None
        overlap, rows = KERNEL - STRIDE, STRIDE * self.edges[-1]
        for layer, (a, b) in zip(self.layers, pairwise(self.edges), strict=True):
            assert isinstance(layer, DecoderLayer) and isinstance(layer.conv_tr, nn.ConvTranspose2d)
            y = layer.conv_tr(layer.before_upsampling(x[:, :, a:b], skip[:, :, a:b]))
            if a and layer.conv_tr.bias is not None:  # the band below has added its own
                y[:, :, :overlap] -= layer.conv_tr.bias[:, None, None]
            y = functional.pad(y, (0, 0, STRIDE * a, rows - STRIDE * b))
            total = y if total is None else total + y
        assert total is not None
        total = total[:, :, self.padding : rows + overlap - self.padding]
        return total if self.last else functional.gelu(total), None


def _check_edges(edges: Sequence[int]) -> None:
    if not all(below < above for below, above in pairwise(edges)):
        raise ValueError(f"bands are too narrow: they would end at bins {edges}")


def _reflect_pad(x: Tensor, before: int, after: int) -> Tensor:
    """Pad the last axis by reflection; a signal that is too short for it is padded with zeros first."""
    missing = max(0, max(before, after) - x.shape[-1] + 1)
    right = min(after, missing)
    left = missing - right
    return functional.pad(functional.pad(x, (left, right)), (before - left, after - right), mode="reflect")
