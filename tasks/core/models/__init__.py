"""Models behind small protocols: the policy, the scorer, the value model."""
