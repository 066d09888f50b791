"""The embedded world: scenes of glyphs, captions that hallucinate, and the training of two tiny models on them."""
