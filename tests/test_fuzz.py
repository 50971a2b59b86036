"""What others wrote ends in a right result or in a clear error."""

from benchmarks import fuzz


def test_changed_inputs_are_read_or_refused_in_our_words(tmp_path):
  """A TypeError for an adapter's config; a reply that takes a minute.

  A few inputs of what benchmarks/fuzz.py tries in ten thousands.
  """
  for name, target in fuzz.make_targets(tmp_path).items():
    counts, faults = fuzz.campaign(target, 25)
    assert not faults, name
    assert sum(counts.values()) == 25
