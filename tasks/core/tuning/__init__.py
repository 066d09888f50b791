"""Ways to train a policy: supervised, by preferences, by rewards."""
