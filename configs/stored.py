"""The config of a run or of a cell again, as its JSON file holds it.

  python -m lbe.train --config=WORKDIR --workdir=ANOTHER

WORKDIR is that of a run or of scores, which has a config.json; in its place
may stand such a file, as cell.json of a study's cell.
"""

import json

from lbe.configs import common


def get_config(path):
  with open(path, encoding='utf-8') as file:
    record = json.load(file)
  # What lbe.evaluate wrote is a config alone, with the model that it scored.
  of_call = ('scored', 'weights', 'int8')
  return common.stored(
    record.get('config')
    or {k: v for k, v in record.items() if k not in of_call}
  )
