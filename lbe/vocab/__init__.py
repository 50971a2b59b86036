"""Tokenizers: loading, exporting, training, extending."""
