"""The config of a run or of a cell again, as its JSON file holds it.

  python -m lbe.train --config=configs/stored.py:WORKDIR/config.json \
    --workdir=ANOTHER

The file is WORKDIR/config.json of a run, or cell.json of a study's cell.
"""

import json

from lbe.configs import common


def get_config(path):
  with open(path, encoding='utf-8') as file:
    return common.stored(json.load(file)['config'])
