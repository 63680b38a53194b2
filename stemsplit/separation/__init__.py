"""The flow: decode, resample, cut windows, run the network, overlap-add, encode."""
