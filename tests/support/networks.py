"""Configurations of tiny networks."""

TINY_UNET = {"n_fft": 512, "hop": 128, "bands": 24, "linear_bands": 8, "widths": [4, 6]}
