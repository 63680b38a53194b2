"""Signal processing on tensors: the STFT, multichannel Wiener filtering, and windows with their overlap-add."""
