"""Fine-tuning of the policy, one file for each method."""
