"""The flag --config, whose numbers may be written as people write them."""

import re

from absl import flags
from ml_collections import config_flags

# The flag is that of the program which defines it here.
flags.disclaim_key_flags()

_POWERS = {'': 0, 'k': 3, 'm': 6, 'b': 9, 't': 12}
_NUMBER = re.compile(r'([+-]?[\d_]*\.?\d[\d_]*)(?:e\+?(\d+))?([kmbt]?)', re.I)


def define() -> flags.FlagHolder:
  """--config, and --config.FIELD=VALUE of each of its fields."""
  return config_flags.DEFINE_config_file('config', None, lock_config=True)


def number(written: str) -> int | float | None:
  """3000000 of '3e6', '3M' or '3_000_000'; None of what is no such number.

  K, M, B and T are thousands of each other; whole numbers are exact.
  """
  match = _NUMBER.fullmatch(written.strip())
  if not match:
    return None
  digits, exponent, letter = match.groups()
  whole, _, part = digits.replace('_', '').partition('.')
  power = int(exponent or 0) + _POWERS[letter.lower()] - len(part)
  value = int(whole + part)
  return value * 10**power if power >= 0 else value / 10**-power


class _Integer(flags.IntegerParser):
  def convert(self, argument):
    found = number(argument) if isinstance(argument, str) else argument
    if isinstance(found, float) and found.is_integer():
      found = int(found)
    if not isinstance(found, int):
      raise ValueError(
        f'{argument!r} is no whole number; write it as 3000000, 3_000_000, 3e6 '
        'or 3M.'
      )
    return found


class _Float(flags.FloatParser):
  def convert(self, argument):
    found = number(argument) if isinstance(argument, str) else argument
    return super().convert(argument) if found is None else float(found)


config_flags.register_flag_parser_for_type(int, _Integer())
config_flags.register_flag_parser_for_type(float, _Float())
