"""Numbers of a config as people write them; sources that the line adds."""

import sys

import pytest
from absl import flags
from ml_collections import config_flags

from lbe.assemble import config_flag
from lbe.run import arguments
from lbe.run import fields

import tiny


@pytest.mark.parametrize(
  'written, value',
  [
    ('12', 12),
    ('3e6', 3_000_000),
    ('3M', 3_000_000),
    ('1.5k', 1500),
    ('1_000_000', 1_000_000),
    ('2B', 2_000_000_000),
    ('1e20', 10**20),
    ('-1', -1),
    ('0.1', 0.1),
    ('2e-4', None),
    ('3x', None),
    ('', None),
  ],
)
def test_numbers_are_what_they_say(written, value):
  """3e6 was refused as no integer, and 3M as well."""
  found = config_flag.number(written)
  assert found == value and type(found) is type(value)


def test_a_field_of_whole_numbers_takes_no_part_of_one():
  integer, real = config_flag._Integer(), config_flag._Float()
  assert integer.parse('1.5k') == 1500 and integer.parse(7) == 7
  for written in ('1.5', '3x'):
    with pytest.raises(ValueError, match='no whole number; write it as'):
      integer.parse(written)
  assert real.parse('2e-4') == 2e-4 and real.parse('2K') == 2000.0


def test_every_field_is_printed(tmp_path):
  lines = fields.told(tiny.config(tmp_path, a={})).splitlines()
  assert 'optim.peak_lr = 0.0002' in lines and "budget.of = ''" in lines
  assert 'data.sources.a.columns = {}' in lines
  assert not [x for x in lines if x.startswith('data.sources =')]


@pytest.fixture
def parsed(monkeypatch):
  """The config that a program's arguments make."""
  monkeypatch.setattr(sys, 'path', [*sys.path])

  def parsed(*arguments_of):
    mine = flags.FlagValues()
    argv = arguments.find_config(['train', *arguments_of])
    config_flags.DEFINE_config_file('config', flag_values=mine)
    # It looks for its overrides there.
    monkeypatch.setattr(sys, 'argv', argv)
    mine(argv)
    return mine.config

  return parsed


def test_the_line_adds_a_source(parsed):
  """One had to write a config for a second corpus."""
  config = parsed(
    '--config=quickstart',
    '--config.data.sources.sw.path=sw.txt',
    '--config.data.sources.sw.proportion=0.2',
    '--config.budget.tokens=3M',
  )
  assert list(config.data.sources) == ['en', 'sw', 'zh']
  assert config.data.sources.sw.path == 'sw.txt'
  assert config.data.sources.sw.proportion == 0.2
  assert config.data.sources.sw.cut == config.data.sources.zh.cut
  assert config.budget.tokens == 3_000_000
  # A name without a path is a misspelt one.
  with pytest.raises(Exception, match='sw'):
    parsed('--config=quickstart', '--config.data.sources.sw.holdout=0.1')
