"""Scripts that regenerate every figure the README shows."""
