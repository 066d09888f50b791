"""The demo world: scenes, captions, questions, and the training of tiny models on them."""
