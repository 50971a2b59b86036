"""Carry LLaMA into other languages: vocabulary, pretraining, instructions."""

__version__ = '0.1.0'
