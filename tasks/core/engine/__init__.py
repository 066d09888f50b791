"""The decoding engine: prefill once, fork, sample by seed, stop at sentence ends."""
