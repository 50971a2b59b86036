"""Evaluators for the tests, made as a run makes them."""

import pathlib

from lbe.configs import common


def make(module, **changes):
  """What a module of lbe.evals makes of its config's fields, some changed."""
  name = module.__name__.rpartition('.')[2]
  changes = {
    k: str(x) if isinstance(x, pathlib.Path) else x for k, x in changes.items()
  }
  fields = getattr(common, name)(**changes).to_dict()
  for field in ('evaluator', 'every', 'at_start', 'at_end'):
    del fields[field]
  return module.make(**fields)
