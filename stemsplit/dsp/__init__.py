"""Signal processing on tensors: the STFT, Wiener filtering, windows and their overlap-add."""
