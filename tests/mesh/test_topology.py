"""Slices by name: sides and sold names agree, and what is none is refused."""

import sys
import types

import pytest

from lbe.mesh import hardware
from lbe.mesh import topology


@pytest.mark.parametrize(
  'sold, sides',
  [
    ('v5p-128', 'v5p:4x4x4'),
    ('v5p-1024', 'v5p:8x8x8'),
    ('v5p-8', 'v5p:2x2x1'),
    ('v4-128', 'v4:4x4x4'),
    ('v5e-256', 'v5e:16x16'),
    ('v6e-8', 'v6e:2x4'),
    ('tpu7x-128', 'tpu7x:4x4x4'),
    ('2*v5p-128', '2*v5p:4x4x4'),
  ],
)
def test_a_sold_name_is_the_slice_of_its_sides(sold, sides):
  """Catches cores counted as chips: v5p-128 has 64 of them."""
  assert topology.parse(sold) == topology.parse(sides)


@pytest.mark.parametrize(
  'name, error',
  [
    ('foo', "as 'v5p:4x4x4', or the sold name, as 'v5p-128'"),
    ('v9:4x4', 'take one of v4, v5e, v5p, v6e, tpu7x'),
    ('h100:9', 'a host has 1 to 8 GPUs; write h100:8, and 2[*]h100:8 for'),
    ('h100-8', 'a host has 1 to 8 GPUs'),
    ('v5p:4x4', 'slices of v5p have 3 sides, as v5p:4x4x4'),
    ('v5p-127', 'no slice has 127 cores'),
    ('v6e-512', 'no slice has 512 chips'),
  ],
)
def test_what_is_no_slice_is_refused_with_the_way_out(name, error):
  with pytest.raises(ValueError, match=error):
    topology.parse(name)


def test_without_libtpu_the_way_to_it_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, 'libtpu', None)
  with pytest.raises(ImportError, match=r"pip install 'lbe\[tpu\]'"):
    topology.devices('v5p:2x2x1')


def test_a_slice_that_libtpu_lacks_is_refused_by_name():
  pytest.importorskip('libtpu')
  with pytest.raises(ValueError, match="'v5p:3x5x7': libtpu knows no such"):
    topology.devices('v5p:3x5x7')


def test_devices_of_two_slices_say_which_they_are_in():
  pytest.importorskip('libtpu')
  devices = topology.devices('2*v5e:2x2')
  assert [d.slice_index for d in devices] == [0] * 4 + [1] * 4


def device(*coords, slice_index=0):
  return types.SimpleNamespace(coords=coords, slice_index=slice_index)


def test_rings_send_both_ways_and_slices_by_the_network():
  """Catches a line counted as a ring, and a torus as one of its sides."""
  chip = hardware.CHIPS['v5p']
  ring = [device(0, 0, z) for z in range(4)]
  line = ring[:2]
  torus = [device(x, y, 0) for x in range(4) for y in range(8)]
  assert topology.send_rate(chip, ring) == 2 * chip.link
  assert topology.send_rate(chip, line) == chip.link
  assert topology.send_rate(chip, torus) == 4 * chip.link
  apart = [device(0, 0, 0), device(0, 0, 0, slice_index=1)]
  assert topology.send_rate(chip, apart) == chip.network
