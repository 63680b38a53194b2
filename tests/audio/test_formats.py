"""What a user may ask for, and what comes of it."""

from typing import Any

import pytest

from stemsplit.audio.formats import FORMATS, Format
from stemsplit.errors import AudioError, UsageError


@pytest.mark.parametrize(
    ("words", "format", "text"),
    [
        ({}, Format("wav", "24"), "WAV, 24 bits"),
        ({"bits": "16"}, Format("wav", "16"), "WAV, 16 bits"),
        ({"bits": "32F"}, Format("wav", "32f"), "WAV, 32 bits float"),
        ({"name": "FLAC"}, Format("flac", "24"), "FLAC, 24 bits"),
        ({"name": ".alac", "bits": "16"}, Format("alac", "16"), "ALAC, 16 bits"),
        ({"name": "mp3"}, Format("mp3", None, 320_000), "MP3, 320 kbit/s"),
        ({"name": "mp3", "bitrate": "192k"}, Format("mp3", None, 192_000), "MP3, 192 kbit/s"),
        ({"name": "mp3", "bitrate": "192"}, Format("mp3", None, 192_000), "MP3, 192 kbit/s"),
        ({"name": "mp3", "bitrate": "192000"}, Format("mp3", None, 192_000), "MP3, 192 kbit/s"),
        ({"name": "mp3", "bitrate": " 192 kbit/s"}, Format("mp3", None, 192_000), "MP3, 192 kbit/s"),
        ({"name": "mp3", "bitrate": "192Kbps"}, Format("mp3", None, 192_000), "MP3, 192 kbit/s"),
        ({"name": "mp3", "quality": 0}, Format("mp3", None, None, 0), "MP3, quality 0"),
        ({"name": "ogg"}, Format("ogg", None, None, 8), "Ogg Vorbis, quality 8"),
        ({"name": "ogg", "quality": 4.5}, Format("ogg", None, None, 4.5), "Ogg Vorbis, quality 4.5"),
        ({"name": "opus"}, Format("opus", None, 192_000), "Opus, 192 kbit/s"),
        ({"name": "opus", "bitrate": "6k"}, Format("opus", None, 6_000), "Opus, 6 kbit/s"),
        ({"name": "m4a", "bitrate": "128k"}, Format("m4a", None, 128_000), "AAC, 128 kbit/s"),
    ],
)
def test_words(words: dict[str, Any], format: Format, text: str) -> None:
    assert Format.parse(**words) == format
    assert str(format) == text
    assert hash(format) == hash(Format.parse(**words))


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"name": "aiff"}, "unknown format 'aiff'", "wav, flac, mp3, ogg, opus, m4a, alac"),
        ({"bits": "32"}, "WAV has no samples of '32' bits", "--bits 16, 24 or 32f"),
        ({"name": "flac", "bits": "32f"}, "FLAC has no samples of '32f' bits", "--bits 16 or 24"),
        ({"name": "mp3", "bits": "16"}, "MP3 has no choice of bits, as it is lossy", "--bitrate 32k, 40k"),
        ({"bitrate": "320k"}, "WAV has no bit rate of 320k", "--bits 16, 24 or 32f"),
        ({"quality": 3}, "WAV has no choice of quality", "--bits 16, 24 or 32f"),
        ({"name": "mp3", "bitrate": "100k"}, "MP3 has no bit rate of 100k", "96k, 112k"),
        ({"name": "mp3", "bitrate": "1411k"}, "MP3 has no bit rate of 1411k", "320k, or --quality 0 (best) to 9"),
        ({"name": "mp3", "quality": 9.5}, "MP3 has no quality 9.5", "--quality 0 (best) to 9"),
        ({"name": "mp3", "quality": float("nan")}, "MP3 has no quality nan", "--quality"),
        ({"name": "mp3", "bitrate": "320k", "quality": 2}, "contradict each other", "one of --bitrate and --quality"),
        ({"name": "ogg", "bitrate": "320k"}, "Ogg Vorbis has no bit rate of 320k", "--quality 0 to 10 (best)"),
        ({"name": "ogg", "quality": -1}, "Ogg Vorbis has no quality -1", "--quality 0 to 10 (best)"),
        ({"name": "opus", "bitrate": "5k"}, "Opus has no bit rate of 5k", "--bitrate 6k to 510k"),
        ({"name": "opus", "quality": 5}, "Opus has no choice of quality", "--bitrate 6k to 510k"),
        ({"name": "m4a", "bitrate": "600k"}, "AAC has no bit rate of 600k", "--bitrate 16k to 512k"),
        ({"name": "m4a", "bitrate": "fast"}, "'fast' is not a bit rate", "320k"),
        ({"name": "m4a", "bitrate": "-128k"}, "'-128k' is not a bit rate", "320k"),
        ({"name": "m4a", "bitrate": "9" * 5_000}, "is not a bit rate", "320k"),
    ],
)
def test_impossible_words(words: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Format.parse(**words)
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "rate", "new"),
    [
        ("wav", 44_100, 44_100),
        ("wav", 1, 1),
        ("flac", 1_048_575, 1_048_575),
        ("alac", 384_000, 384_000),
        ("mp3", 44_100, 44_100),
        ("mp3", 37_800, 44_100),
        ("mp3", 6_000, 8_000),
        ("mp3", 96_000, 48_000),
        ("ogg", 37_801, 37_801),
        ("ogg", 384_000, 192_000),
        ("opus", 44_100, 48_000),
        ("opus", 8_000, 48_000),
        ("m4a", 96_000, 96_000),
        ("m4a", 50_000, 64_000),
        ("m4a", 192_000, 96_000),
    ],
)
def test_rates(name: str, rate: int, new: int) -> None:
    assert Format(name).rate_for(rate) == new


@pytest.mark.parametrize(("name", "rate"), [("flac", 1_048_576), ("alac", 705_600)])
def test_lossless_formats_are_never_resampled(name: str, rate: int) -> None:
    with pytest.raises(AudioError, match=f"no sample rate of {rate} Hz") as caught:
        Format(name).rate_for(rate)
    assert "wav" in caught.value.hint


def test_what_is_to_be_known_of_a_format() -> None:
    assert [Format(name).extension for name in FORMATS] == [".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".m4a"]
    assert [name for name in FORMATS if Format(name).lossless] == ["wav", "flac", "alac"]
    assert [name for name in FORMATS if not Format(name).clips] == []
    assert not Format("wav", "32f").clips


@pytest.mark.parametrize(
    ("format", "most"),
    [
        (Format(), 264_600),
        (Format("wav", "32f"), 352_800),
        (Format("flac", "16"), 176_400),
        (Format("mp3"), 40_000),
        (Format("mp3", quality=2), 40_000),
        (Format("opus", bitrate=64_000), 8_000),
        (Format("ogg"), 62_500),
    ],
    ids=str,
)
def test_how_much_room_a_second_takes(format: Format, most: int) -> None:
    assert format.bytes_per_second(44_100, 2) == most
