"""stemsplit turns a song into stems: vocals, drums, bass, other.

The flow, in the order in which it reads (each stage is a generator over the previous one):

    audio -> resampling -> windows -> networks (stft -> masks -> inverse) -> windows -> resampling -> encoding

and `separation` is where it is put together.

Letters used everywhere: `B` batch, `S` stems, `C` channels, `N` samples, `F` bins, `T` frames of an STFT. Audio is
float32, nominally in [-1, 1], shaped `(C, N)`; stems are `(S, C, N)`; spectra are `(..., F, T)` complex64. `rate` is an
int in Hz. A length is in samples unless its name ends in `_seconds`.
"""

__version__ = "0.1.0"
