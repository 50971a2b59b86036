"""Exams: their files, the exact prompts of each protocol, answers read back."""
