"""Cells as data: what is refused, what decides an identity, and the order."""

import pytest

from lbe.studies import grid


def cell(name, seed=0, kind='train', tokens=1, **inputs):
  config = {
    'seed': seed,
    'log_every': 10,
    'data': {'sources': {'zh': {'path': '{files}/zh.jsonl'}}},
  }
  return dict(
    name=name,
    kind=kind,
    axes={'seed': seed},
    inputs=inputs,
    config=config,
    tokens=tokens,
  )


FILES = {'zh.jsonl': {'sha256': 'a'}, 'en.jsonl': {'sha256': 'b'}}


def identities(*cells, files=FILES):
  found = grid.identify(grid.order(list(cells)), files, {})
  return {c['name']: c['identity'] for c in found}


@pytest.mark.parametrize(
  'cells, told',
  [
    (
      [cell('a', init_from='b'), cell('b', init_from='a')],
      'in a circle: (a → b → a|b → a → b);',
    ),
    ([cell('a', init_from='b')], "'a': init_from='b' is no cell"),
    ([cell('a'), cell('a', 1)], "two cells have the name 'a'.*'seed': 1"),
    ([cell('a'), cell('b')], "'a' and 'b' are two names of one cell"),
    ([cell('a/b')], "cell 'a/b' of the kind 'train': a name is of"),
    ([cell('a', kind='score')], "kind 'score': .* one of train"),
  ],
)
def test_what_is_no_grid_is_refused(cells, told):
  """Catches runs that are made twice, or that wait for each other."""
  with pytest.raises(ValueError, match=told):
    identities(*cells)


def test_a_file_that_the_study_has_not_is_refused():
  with pytest.raises(ValueError, match='reads {files}/zh.jsonl, which is no'):
    identities(cell('a'), files={})
  evals = {'zh': {'path': '{files}/zh_eval.jsonl'}}
  with pytest.raises(ValueError, match='evals.zh reads {files}/zh_eval.jsonl'):
    grid.identify_evals(evals, FILES, '')


def test_an_identity_is_what_decides_numbers_and_that_of_the_inputs():
  """Catches results of another run under a name, and runs made in vain."""
  cells = [cell('base'), cell('a', 1, init_from='base'), cell('b', 2)]
  before = identities(*cells)
  free = [
    dict(c, axes={}, config=c['config'] | {'log_every': 1}) for c in cells
  ]
  assert identities(*free) == before
  changed = [cell('base', 7), *cells[1:]]
  after = identities(*changed)
  assert after['base'] != before['base'] and after['a'] != before['a']
  assert after['b'] == before['b']
  other = {'zh.jsonl': {'sha256': 'c'}}
  assert not set(identities(*cells, files=other).values()) & set(
    before.values()
  )


def test_two_sources_that_change_their_texts_are_another_cell():
  """Catches contents that count in whatever place they stand."""

  def both(zh, en):
    it = cell('a')
    paths = {'zh': {'path': zh}, 'en': {'path': en}}
    return dict(it, config=it['config'] | {'data': {'sources': paths}})

  zh, en = '{files}/zh.jsonl', '{files}/en.jsonl'
  assert identities(both(zh, en)) != identities(both(en, zh))


def test_evaluators_of_other_texts_or_dtypes_are_others():
  evals = {'zh': {'path': '{files}/zh.jsonl'}}
  known = grid.identify_evals(evals, FILES, 'float32')['zh']['identity']
  other = {'zh.jsonl': {'sha256': 'c'}}
  for files, dtype in ((other, 'float32'), (FILES, 'bfloat16')):
    found = grid.identify_evals(evals, files, dtype)['zh']['identity']
    assert found != known


def test_the_cheapest_comparison_is_complete_first():
  """Catches a budget that ends with halves of many comparisons."""
  cells = grid.order(
    [
      cell('base', tokens=10),
      cell('big-a', 1, tokens=90, init_from='base'),
      cell('small-a', 2, tokens=3, init_from='base'),
      cell('big-b', 3, tokens=90, init_from='base'),
      cell('small-b', 4, tokens=3, init_from='base'),
      cell('rest', 5, tokens=1, init_from='base'),
    ]
  )
  claims = [
    {'terms': [{'cells': {'seed': 1}}, {'cells': {'seed': 3}}]},
    {'terms': [{'cells': {'seed': 2}}, {'cells': {'seed': 4}}]},
    {'terms': [{'cells': {'seed': 0}}, {'cells': {'seed': 99}}]},
  ]
  names = [c['name'] for c in grid.by_comparison(cells, claims, ())]
  assert names == ['base', 'small-a', 'small-b', 'rest', 'big-a', 'big-b'] or (
    names == ['base', 'small-a', 'small-b', 'big-a', 'big-b', 'rest']
  )
  left = grid.by_comparison(cells, claims, {'base', 'small-a', 'small-b'})
  assert [c['name'] for c in left][:2] == ['big-a', 'big-b']


def test_only_brings_what_the_chosen_cells_begin_from():
  cells = [cell('base'), cell('a', 1, init_from='base'), cell('b', 2)]
  assert grid.chosen(cells, ['a*']) == {'a', 'base'}
  assert grid.chosen(cells, []) == {'a', 'base', 'b'}
  with pytest.raises(ValueError, match='--only=c: no cell has such a name'):
    grid.chosen(cells, ['c'])


def test_what_differs_is_told_by_field():
  old, new = cell('a'), cell('a', 3, init_from='base')
  assert grid.differences(old, new) == [
    "inputs: {} → {'init_from': 'base'}",
    'seed: 0 → 3',
  ]
