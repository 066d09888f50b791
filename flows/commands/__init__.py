"""The commands of `visloop`, by what they are for."""
