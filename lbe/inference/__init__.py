"""Scores and generated tokens of a model."""
