"""Evaluators: each a module, run in the process that trains."""
