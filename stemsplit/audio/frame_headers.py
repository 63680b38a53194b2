"""Headers of compressed frames, which state sample rate and channels of each: MPEG audio, AAC in ADTS, and AC-3."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_MPEG_RATES = (44_100, 48_000, 32_000)  # ISO/IEC 11172-3, 2.4.2.3, for MPEG-1
_MPEG_BITRATES = {  # kbit/s, by MPEG-1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_AC3_RATES = (48_000, 44_100, 32_000)  # ATSC A/52, table 5.6
_AC3_CHANNELS = (2, 1, 2, 3, 3, 4, 4, 5)  # without LFE; table 5.8
_RARE = 0.01  # of all frames: fewer may be damage


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a frame says about itself.

    Attributes:
        rate: Hz.
        channels: Number of channels.
        size: Bytes with the header, or None if that is not known.
    """

    rate: int
    channels: int
    size: int | None


def read_frame_header(data: bytes) -> FrameHeader | None:
    """Read the header at the beginning of a frame, of which 8 bytes are enough; None if there is none that is known."""
    if len(data) < 8:
        return None
    if data[:2] == b"\x0b\x77" and data[4] >> 6 < 3 and data[5] >> 3 <= 10:
        return FrameHeader(_AC3_RATES[data[4] >> 6], _AC3_CHANNELS[data[6] >> 5], None)
    if data[0] != 0xFF or data[1] < 0xE0:
        return None
    layer = 4 - (data[1] >> 1 & 3)
    if layer == 4:
        return _read_adts(data) if data[1] >= 0xF0 else None
    return _read_mpeg(data, layer)


def choose_format(headers: Iterable[FrameHeader]) -> tuple[int, int] | None:
    """Return the highest sample rate and number of channels that more than a few frames have; None without frames."""
    rates: Counter[int] = Counter()
    channels: Counter[int] = Counter()
    for header in headers:
        rates[header.rate] += 1
        channels[header.channels] += 1
    least = rates.total() * _RARE
    if not rates:
        return None
    return (
        max(rate for rate, count in rates.items() if count >= least),
        max(number for number, count in channels.items() if count >= least),
    )


def _read_mpeg(data: bytes, layer: int) -> FrameHeader | None:
    """ISO/IEC 11172-3, 2.4.1.3; versions are 3 for MPEG-1, 2 for MPEG-2, and 0 for MPEG-2.5."""
    version, bitrate, rate = data[1] >> 3 & 3, data[2] >> 4, data[2] >> 2 & 3
    if version == 1 or bitrate == 15 or rate == 3:
        return None
    hertz = _MPEG_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    channels = 1 if data[3] >> 6 == 3 else 2
    if bitrate == 0:  # "free"
        return FrameHeader(hertz, channels, None)
    bits = 1_000 * _MPEG_BITRATES[version == 3, layer][bitrate - 1]
    padding = data[2] >> 1 & 1
    if layer == 1:
        return FrameHeader(hertz, channels, (12 * bits // hertz + padding) * 4)
    samples = 1152 if layer == 2 or version == 3 else 576
    return FrameHeader(hertz, channels, samples // 8 * bits // hertz + padding)


def _read_adts(data: bytes) -> FrameHeader | None:
    """ISO/IEC 13818-7, 6.2."""
    index, configuration = data[2] >> 2 & 15, (data[2] & 1) << 2 | data[3] >> 6
    size = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    if index >= len(_AAC_RATES) or size < 7:
        return None
    return FrameHeader(_AAC_RATES[index], 8 if configuration == 7 else configuration or 2, size)
