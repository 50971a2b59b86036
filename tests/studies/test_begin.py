"""What a study's folder may become, and what it may not."""

import pathlib

import pytest

from lbe.studies import begin
from lbe.studies import folder
from lbe.studies import frozen

CLAIM = dict(
  name='C',
  claim='One seed is another.',
  evaluator='zh',
  metric='bits_per_byte',
  terms=[{'weight': 1, 'cells': {'seed': 1}}],
  expect='equal',
  margin=0.1,
)


@pytest.fixture
def texts(tmp_path):
  path = tmp_path / 'zh.txt'
  path.write_text(
    '\n\n'.join(f'第{i}段，春天来了。' for i in range(30)), 'utf-8'
  )
  return path


def asked(texts, *, seeds=(1, 2), name='toy', **changes):
  cells = [
    dict(
      name=f's{seed}',
      kind='train',
      axes={'seed': seed},
      inputs={},
      config={'seed': seed, 'path': '{files}/zh.jsonl'} | changes,
      tokens=1,
    )
    for seed in seeds
  ]
  return dict(
    name=name,
    files={'zh': dict(path=str(texts), eval_documents=5)},
    evals={'zh': {'evaluator': 'perplexity', 'path': '{files}/zh_eval.jsonl'}},
    cells=cells,
    claims=[CLAIM],
  )


def make(study, what, accept=False, wanted=None):
  wanted = wanted or {cell['name'] for cell in what['cells']}
  return begin.begin(
    study, what, wanted=wanted, accept=accept, say=lambda text: None
  )


def begun(study, record, name, state):
  """What a worker leaves of a cell."""
  (identity,) = (c['identity'] for c in record['cells'] if c['name'] == name)
  told = {'state': state, 'identity': identity}
  folder.write_cell(study, name, told)


def test_cells_are_added_and_nothing_else_moves(texts, tmp_path):
  """Catches an added seed that begins all others again."""
  study = tmp_path / 'study'
  first = make(study, asked(texts))
  begun(study, first, 's1', 'done')
  assert make(study, asked(texts)) == first
  more = make(study, asked(texts, seeds=(1, 2, 3)))
  assert more['cells'][:2] == first['cells']
  assert folder.read_cell(study, 's1')['state'] == 'done'


def test_results_by_another_version_are_refused_with_the_difference(
  texts, tmp_path
):
  """Catches rows of one learning rate in the table of another."""
  study = tmp_path / 'study'
  first = make(study, asked(texts))
  begun(study, first, 's1', 'done')
  begun(study, first, 's2', 'failed')
  with pytest.raises(ValueError, match='another version.*\ns1: rate: None → 3'):
    make(study, asked(texts, rate=3))
  record = make(study, asked(texts, rate=3), accept=True)
  (note,) = record['accepted']
  assert note['cell'] == 's1' and note['differences'] == ['rate: None → 3']
  identities = [[c['identity'] for c in r['cells']] for r in (first, record)]
  assert identities[0][0] == identities[1][0], 'what ran stays what it is'
  assert identities[0][1] != identities[1][1], 'what failed begins anew'
  assert not folder.read_cell(study, 's2')
  again = make(study, asked(texts, rate=3), accept=True)
  assert again['accepted'] == record['accepted']


def test_a_cell_that_somebody_works_on_is_refused_and_kept(texts, tmp_path):
  """Catches a run whose folder is deleted under it before it saved once."""
  study = tmp_path / 'study'
  first = make(study, asked(texts))
  with folder.locked(study, 's1'):
    begun(study, first, 's1', 'running')
    log = folder.cell_folder(study, 's1') / 'log.txt'
    log.write_text('step 1')
    with pytest.raises(ValueError, match='s1: rate: None → 3\n.*works on it'):
      make(study, asked(texts, rate=3))
    assert log.is_file() and folder.read(study)['cells'] == first['cells']
    with folder.locked(study, 's1') as other:
      assert other is None, 'nobody else may take it'
    kept = make(study, asked(texts, rate=3), accept=True)
    assert kept['cells'][0]['identity'] == first['cells'][0]['identity']
  # Interrupted before it saved: nothing is lost. The lock stays the one that
  # others may have opened.
  lock = (log.parent / 'lock').stat().st_ino
  anew = make(study, asked(texts, rate=4))
  assert (log.parent / 'lock').stat().st_ino == lock
  assert anew['cells'][0]['config']['rate'] == 4
  assert not log.exists() and not folder.read_cell(study, 's1')


def test_a_cell_made_by_no_known_version_is_refused(texts, tmp_path):
  """Catches results of a rate that study.json has not, under its name."""
  study = tmp_path / 'study'
  first = make(study, asked(texts))
  folder.write_cell(study, 's1', {'state': 'done', 'identity': 'old'})
  with pytest.raises(ValueError, match='s1: made by another version than the'):
    make(study, asked(texts))
  record = make(study, asked(texts), accept=True)
  assert record['cells'][0]['identity'] == 'old', 'it counts as it is'
  assert record['cells'][1] == first['cells'][1]
  assert make(study, asked(texts), accept=True) == record


def test_texts_that_changed_are_refused(texts, tmp_path):
  """Catches two halves of a table on two sets of documents."""
  study = tmp_path / 'study'
  make(study, asked(texts))
  path = study / 'files' / 'zh_eval.jsonl'
  whole = path.read_text('utf-8')
  path.write_text(whole.replace('春', '秋'), 'utf-8')
  with pytest.raises(ValueError, match='zh_eval.jsonl has changed since'):
    make(study, asked(texts))
  path.unlink()
  with pytest.raises(ValueError, match='zh_eval.jsonl is gone'):
    make(study, asked(texts))
  path.write_text(whole, 'utf-8')
  other = asked(texts)
  other['files']['zh']['eval_documents'] = 6
  with pytest.raises(ValueError, match='files.zh was made by .*: 5.*: 6'):
    make(study, other)
  # The source may be gone or change: it was read once.
  texts.write_text('nothing')
  assert make(study, asked(texts))


def test_a_workdir_of_another_study_or_of_a_run_is_refused(texts, tmp_path):
  study = tmp_path / 'study'
  make(study, asked(texts))
  with pytest.raises(ValueError, match="belongs to the study 'toy'.*'other'"):
    make(study, asked(texts, name='other'))
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match='run holds a run; a study has'):
    make(run, asked(texts))


def test_a_model_that_is_not_there_is_named(texts, tmp_path):
  """And asked for only where a cell that is chosen needs it."""
  what = asked(texts)
  what['cells'].append(
    dict(
      name='llama',
      kind='model',
      axes={},
      inputs={},
      config={'path': str(tmp_path / 'llama-7b')},
      tokens=0,
    )
  )
  with pytest.raises(ValueError, match="'llama': there is no model at .*7b'"):
    make(tmp_path / 'study', what)
  some = make(tmp_path / 'study', what, wanted={'s1'})
  assert [c['name'] for c in some['cells']] == ['s1']
  more = make(tmp_path / 'study', what, wanted={'s2'})
  assert [c['name'] for c in more['cells']] == ['s1', 's2']


@pytest.mark.parametrize(
  'claim, told',
  [
    (dict(evaluator='en'), "no evaluator is called 'en'"),
    (
      dict(terms=[{'weight': 1, 'cells': {'seed': 9}}]),
      "no cell of this study has the axes {'seed': 9}",
    ),
  ],
)
def test_a_claim_that_nothing_can_answer_is_refused(
  texts, tmp_path, claim, told
):
  what = asked(texts)
  what['claims'] = [CLAIM | claim]
  with pytest.raises(ValueError, match=f"claim '?C'?: .*{told}"):
    make(tmp_path / 'study', what)


def test_frozen_documents_are_split_cut_and_nested(texts, tmp_path):
  """Catches a scored document that is trained on, and halves of characters."""
  facts = frozen.make(
    tmp_path, 'zh', path=str(texts), eval_documents=5, max_characters=4
  )
  rows = {name: [r['text'] for r in _rows(tmp_path, name)] for name in facts}
  assert facts['zh_eval.jsonl']['records'] == 5
  assert not set(rows['zh.jsonl']) & set(rows['zh_eval.jsonl'])
  pieces = rows['zh.jsonl'] + rows['zh_eval.jsonl']
  assert max(map(len, pieces)) == 4 and len(pieces) == len(set(pieces))
  assert ''.join(sorted(set(''.join(pieces)))) == ''.join(
    sorted(set(texts.read_text('utf-8')) - {'\n'})
  )
  less = frozen.make(
    tmp_path,
    'less',
    path=str(texts),
    eval_documents=5,
    max_characters=4,
    train_bytes=100,
  )
  part = [r['text'] for r in _rows(tmp_path, 'less.jsonl')]
  assert part == rows['zh.jsonl'][: len(part)]
  assert 100 <= sum(len(x.encode()) for x in part) < 112
  assert less['less_eval.jsonl'] == facts['zh_eval.jsonl']
  with pytest.raises(ValueError, match='files.zh: 30 documents are left'):
    frozen.make(tmp_path, 'zh', path=str(texts), eval_documents=30)


def test_long_examples_are_left_out_before_any_tokenizer(tmp_path):
  """Catches two vocabularies that learn from other examples."""
  examples = tmp_path / 'sft.jsonl'
  examples.write_text(
    '{"instruction": "", "output": "nothing is asked"}\n'
    + ''.join(
      f'{{"instruction": "q{i}", "output": "{"a" * 10 * i}"}}\n'
      for i in range(1, 9)
    )
  )
  facts = frozen.make(
    tmp_path,
    'sft',
    path=str(examples),
    template='alpaca',
    max_bytes_each=85,
    on_bad_record='skip',
  )
  (skipped,) = facts['sft.jsonl']['skipped']
  assert "line 1: the field 'instruction' is empty" in skipped
  assert facts['sft.jsonl']['records'] == 5
  assert {r['instruction'] for r in _rows(tmp_path, 'sft.jsonl')} == {
    f'q{i}' for i in range(1, 6)
  }


def _rows(study, name):
  from lbe.text import lines

  return lines.rows(pathlib.Path(study) / 'files' / name)
