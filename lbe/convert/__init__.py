"""Hugging Face's and PEFT's folders, both ways, with proof."""
