"""Staged answers (LLaVA-CoT): a teacher writes them, a gate verifies them."""
