import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.songs import STEMS

from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.errors import DatasetError
from stemsplit.evaluation import scoring
from stemsplit.evaluation.metrics import sdr
from stemsplit.evaluation.scoring import (
    Estimator,
    SongScores,
    evaluate,
    ideal_mask,
    mean_scores,
    mean_sdr,
    mixture,
    score,
)
from stemsplit.models.checkpoint import Header, Model, new_model
from stemsplit.separation.separator import Separator

MakeModel = Callable[..., Model]
MakeSong = Callable[..., dict[str, np.ndarray]]


def stack(written: dict[str, np.ndarray]) -> torch.Tensor:
    """`(S, C, N)`."""
    return torch.from_numpy(np.stack([written[stem].T for stem in STEMS]))


def scored(songs: list[Multitrack], estimator: Estimator) -> list[SongScores]:
    return [score(song, STEMS, {"": estimator})[""] for song in songs]


def scores_of(score: SongScores) -> list[float]:
    assert list(score.sdr) == list(STEMS)
    return list(score.sdr.values())


@pytest.mark.parametrize("channels", [1, 2])
def test_a_perfect_network(shares_model: MakeModel, tmp_path: Path, channels: int) -> None:
    """A song whose stems are just the shares that the network gives."""
    tune = np.random.default_rng(0).uniform(-1, 1, (10_000, channels)).astype(np.float32)
    for stem, share in zip(STEMS, (0.5, 0.25, 0.125, 0.125), strict=True):
        soundfile.write(tmp_path / f"{stem}.wav", tune * share, 44_100, subtype="FLOAT")
    (song,) = evaluate(Separator(shares_model()), find_songs(tmp_path, STEMS))
    assert min(scores_of(song)) > 100
    (worse,) = evaluate(Separator(shares_model(shares=(0.25, 0.5, 0.125, 0.125))), find_songs(tmp_path, STEMS))
    assert worse.sdr["vocals"] == pytest.approx(6.0206, abs=1e-3)  # half of it
    assert worse.sdr["drums"] == pytest.approx(0, abs=1e-3)  # twice as much
    assert worse.sdr["bass"] > 100


def test_the_accompaniment_is_all_that_is_not_the_vocals(make_song: MakeSong, tmp_path: Path) -> None:
    true = stack(make_song(tmp_path / "song"))
    stems = ("vocals", "accompaniment")
    (song,), errors = scoring.find_scorable(tmp_path, stems)
    assert not errors

    def perfect(song: Multitrack, stems: tuple[str, ...]) -> Iterator[torch.Tensor]:
        yield torch.stack([true[0], true[1:].sum(0)])

    scores = score(song, stems, {"perfect": perfect, "mixture": mixture, "mask": ideal_mask}, bss_eval=False)
    assert min(scores["perfect"].sdr.values()) > 100
    expected = sdr(torch.stack([true[0], true[1:].sum(0)]), true.sum(0).expand(2, -1, -1))
    assert list(scores["mixture"].sdr.values()) == pytest.approx(expected.tolist(), abs=1e-3)
    assert min(scores["mask"].sdr.values()) > max(scores["mixture"].sdr.values())


@pytest.mark.parametrize("block", [1000, 7777, 2**18])
@pytest.mark.parametrize("channels", [1, 2])
def test_against_separate_and_sdr_on_the_whole(
    unet_model: MakeModel,
    make_song: MakeSong,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    channels: int,
) -> None:
    true = stack(make_song(tmp_path / "song", channels=channels))
    model = unet_model(rate=8000)
    stems = Separator(model).separate_array(true.sum(0).numpy(), 8000)
    estimate = torch.from_numpy(np.stack(list(stems.values())))
    monkeypatch.setattr(scoring, "BLOCK", block)
    (song,) = evaluate(Separator(model), find_songs(tmp_path, STEMS))
    assert song.song == "song"
    assert scores_of(song) == pytest.approx(sdr(true, estimate).tolist(), abs=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
def test_models_are_scored_as_they_separate_files(
    unet_model: MakeModel, make_song: MakeSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """Whole songs are standardized, and the stems add up."""
    true = stack(make_song(tmp_path / "song", channels=channels))
    header = Header("demucs", {"width": 4, "depth": 2}, STEMS, rate=8000, channels=2, length=4096, hop=3072)
    torch.manual_seed(0)
    model = new_model(header)
    separator = Separator(Model(header, model.network.eval()))
    estimate = torch.from_numpy(np.stack(list(separator.separate_array(true.sum(0).numpy(), 8000).values())))
    monkeypatch.setattr(scoring, "BLOCK", 3001)
    (song,) = evaluate(separator, find_songs(tmp_path, STEMS))
    assert scores_of(song) == pytest.approx(sdr(true, estimate).tolist(), abs=1e-3)


def test_mono_songs_score_like_their_stereo_copies(unet_model: MakeModel, make_song: MakeSong, tmp_path: Path) -> None:
    mono = make_song(tmp_path / "mono", channels=1)
    (tmp_path / "stereo").mkdir()
    for stem, samples in mono.items():
        soundfile.write(tmp_path / "stereo" / f"{stem}.wav", np.repeat(samples, 2, axis=1), 8000, subtype="FLOAT")
    # Like channels go in, but the masks of the two need not be alike: compare where they are.
    model = unet_model(rate=8000, channels=1)
    songs = find_songs(tmp_path, STEMS)
    (one,) = evaluate(Separator(model), songs[:1])
    assert all(math.isfinite(value) for value in scores_of(one))
    for reference in (mixture, ideal_mask):
        one, other = scored(songs, reference)
        assert scores_of(one) == pytest.approx(scores_of(other), abs=1e-3)


def test_songs_that_do_not_fit_the_model(unet_model: MakeModel, make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path / "song")
    songs = find_songs(tmp_path, STEMS)
    with pytest.raises(DatasetError, match="'song' have 8000 Hz and 2 channels, not 44100 Hz"):
        list(evaluate(Separator(unet_model()), songs))
    with pytest.raises(DatasetError, match="2 channels, not 8000 Hz and 1 channel"):
        list(evaluate(Separator(unet_model(rate=8000, channels=1)), songs))


@pytest.mark.parametrize("block", [1000, 2**18])
def test_the_mixture_as_estimate(
    make_song: MakeSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", block)
    true = stack(make_song(tmp_path)).double()
    (song,) = scored(find_songs(tmp_path, STEMS), mixture)
    rest = true.sum(0) - true  # what is wrong about it: all other stems
    expected = 10 * torch.log10(true.square().sum((1, 2)) / rest.square().sum((1, 2)))
    assert scores_of(song) == pytest.approx(expected.tolist(), abs=1e-3)


def test_ideal_masks_are_far_better_than_the_mixture(make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path)
    songs = find_songs(tmp_path, STEMS)
    (ideal,), (nothing,) = scored(songs, ideal_mask), scored(songs, mixture)
    for stem in STEMS:
        assert ideal.sdr[stem] > nothing.sdr[stem] + 8


@pytest.mark.full
def test_ideal_masks_against_one_pass(make_song: MakeSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition, on the whole song at once; only its two ends may differ a little."""
    true = stack(make_song(tmp_path, length=60_000))
    padded = torch.nn.functional.pad(true, (8192, 16_384))
    window = torch.hann_window(4096)
    flat = padded.flatten(0, 1)
    spectra = torch.stft(flat, 4096, 1024, window=window, return_complex=True).unflatten(0, (4, 2))  # type: ignore[no-untyped-call]
    power = spectra.abs() ** 2
    estimates = power / (power.sum(0) + 1e-20) * spectra.sum(0)
    whole = torch.istft(estimates.flatten(0, 1), 4096, 1024, window=window, length=padded.shape[-1])
    expected = sdr(true, whole.unflatten(0, (4, 2))[..., 8192:-16_384]).tolist()  # type: ignore[no-untyped-call]
    for block in (2**18, 16_384, 4096, 60_000):
        monkeypatch.setattr(scoring, "BLOCK", block)
        (song,) = scored(find_songs(tmp_path, STEMS), ideal_mask)
        assert scores_of(song) == pytest.approx(expected, abs=1e-3)


@pytest.mark.full
def test_a_missing_stem_has_no_score(unet_model: MakeModel, make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path / "1")
    make_song(tmp_path / "2", stems=("vocals", "bass"), seed=1)
    songs = find_songs(tmp_path, STEMS)
    for one, two in (
        tuple(evaluate(Separator(unet_model(rate=8000)), songs)),
        tuple(scored(songs, mixture)),
        tuple(scored(songs, ideal_mask)),
    ):
        assert [math.isnan(value) for value in scores_of(one)] == [False] * 4
        assert [math.isnan(value) for value in scores_of(two)] == [False, True, False, True]
        means = mean_scores([one, two])
        assert means["drums"] == one.sdr["drums"]
        assert means["bass"] == pytest.approx((one.sdr["bass"] + two.sdr["bass"]) / 2)


def test_means() -> None:
    nan = math.nan
    scores = [SongScores("a", {"vocals": 1.0, "bass": nan}), SongScores("b", {"vocals": 4.0, "bass": nan})]
    means = mean_scores(iter(scores))
    assert means["vocals"] == 2.5
    assert math.isnan(means["bass"])
    assert mean_sdr(means) == 2.5
    assert mean_sdr(scores[1].sdr) == 4.0
    assert math.isnan(mean_sdr({"bass": nan}))
    assert mean_scores([]) == {}


def test_songs_are_scored_one_at_a_time(unet_model: MakeModel, make_song: MakeSong, tmp_path: Path) -> None:
    for name in ("1", "2"):
        make_song(tmp_path / name)
    asked = 0

    def songs() -> Iterator[Multitrack]:
        nonlocal asked
        for song in find_songs(tmp_path, STEMS):
            asked += 1
            yield song

    for done, scores in enumerate(evaluate(Separator(unet_model(rate=8000)), songs()), start=1):
        assert scores.song == str(done)
        assert asked == done
