"""A config with more sources: --config.data.sources.NAME.path=… adds one.

lbe/run/arguments.py names it as _with_sources.py:NAME,NAME:FILE:ARGUMENT.
"""

import runpy

from lbe.configs import common


def get_config(given):
  names, path, *argument = given.split(':', 2)
  config = runpy.run_path(path)['get_config'](*argument)
  with config.unlocked():
    for name in names.split(','):
      config.data.sources[name] = common.source()
  return config
