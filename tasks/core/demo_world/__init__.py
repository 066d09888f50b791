"""The demo world: scenes drawn from glyphs, and captions that hallucinate as real ones do."""
