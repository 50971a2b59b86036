"""Bits by sentence: of the same sentences, by hand and by perplexity's rule."""

import math

import pytest

from lbe.evals import core
from lbe.evals import parallel
from lbe.evals import perplexity

import evaluators
import harness


@pytest.fixture(scope='module')
def model(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf')


def test_bits_are_those_of_each_sentence_alone(test_data, model):
  """The same nats as perplexity's; English is read, though not asked for."""
  made = evaluators.make(
    parallel, path=test_data / 'text_ntrex', languages=('sw', 'vi'), limit=5
  )
  assert list(made.texts) == ['sw', 'vi', 'en'] and made.ids == list('12345')
  found = made.evaluate(model, name='same', step=3)
  nats = {}
  for code, texts in made.texts.items():
    nats[code], _ = perplexity.document_nats(model, texts)
  rows = {r['name']: r for r in found.rows}
  sizes = sum(len(text.encode()) for text in made.texts['sw'])
  for name, value in {
    'bits_per_sentence/sw': nats['sw'].mean() / math.log(2),
    'bits_per_byte/sw': nats['sw'].sum() / math.log(2) / sizes,
    'relative/sw': nats['sw'].sum() / nats['en'].sum(),
  }.items():
    assert rows[name]['value'] == pytest.approx(value, rel=1e-6)
    assert rows[name]['count'] == 5
    assert rows[name]['unit'] == 'sentences'
  assert found.metrics['relative/vi'] == rows['relative/vi']['value']
  assert 'relative/en' not in rows and rows['relative/sw']['reference'] == 'en'
  assert [p['id'] for p in found.predictions][4:6] == ['sw/5', 'vi/1']
  assert found.predictions[0]['bits'] == pytest.approx(
    nats['sw'][0] / math.log(2), rel=1e-6
  )
  assert set(core.BETTER['parallel']) <= {x.split('/')[0] for x in rows}


def test_the_interval_of_the_ratio_draws_sentences_in_both_languages(
  model, tmp_path
):
  """What is the same text needs as many bits, whichever sentences are drawn."""
  text = 'A dog.\nOnce upon a time there was a cat.\nNo, said Tom.\n' * 7
  made = evaluators.make(parallel, path=lines(tmp_path, en=text, sw=text))
  found = made.evaluate(model, name='same', step=0)
  rows = {r['name']: r for r in found.rows}
  assert rows['relative/sw']['interval95'] == pytest.approx([1.0, 1.0])
  low, high = rows['bits_per_sentence/sw']['interval95']
  assert high > low + 5


def test_all_of_sib200_is_the_same_sentence_by_its_id(test_data):
  made = evaluators.make(parallel, path=test_data / 'bench_sib200')
  assert len(made.texts) == 15 and len(made.ids) == 1004
  assert {len(texts) for texts in made.texts.values()} == {1004}
  test = evaluators.make(
    parallel,
    path=test_data / 'bench_sib200',
    split='test',
    languages=('ta',),
    reference='',
  )
  assert list(test.texts) == ['ta'] and len(test.ids) == 204
  assert evaluators.make(parallel, path='') is None


def lines(folder, **texts):
  folder.mkdir(exist_ok=True)
  for code, text in texts.items():
    (folder / f'{code}.txt').write_text(text)
  return folder


@pytest.mark.parametrize(
  'texts, changes, message',
  [
    ({'en': 'a\nb\n', 'ta': 'c\n'}, {}, 'en has 2 sentences and ta has 1'),
    ({'en': 'a\n\nb\n'}, {}, r'en\.txt:2: an empty line'),
    ({'en': 'a\n'}, {'languages': ('ta',)}, r'has no ta\.txt; it has en'),
    ({'en': 'a\n'}, {'languages': ('tam',)}, "the nearest is 'ta'"),
    ({'ta': 'a\n'}, {}, r'has no en\.txt; it has ta'),
    ({'en': 'a\n'}, {'split': 'test'}, 'has no splits, as SIB-200 has'),
    ({'en': 'a\n'}, {'limit': -1}, 'limit=-1 is below 0'),
    ({'readme': 'a\n'}, {}, 'has no sentences by language: neither'),
  ],
)
def test_sentences_that_are_not_parallel_are_refused(
  tmp_path, texts, changes, message
):
  folder = lines(tmp_path / 'own', **texts)
  with pytest.raises(ValueError, match=message):
    evaluators.make(parallel, path=folder, **changes)


def test_another_id_at_the_same_place_is_refused(tmp_path):
  head = 'index_id\tcategory\ttext\n'
  for language, ids in {'eng_Latn': '12', 'swh_Latn': '13'}.items():
    (tmp_path / language).mkdir()
    (tmp_path / language / 'test.tsv').write_text(
      head + ''.join(f'{i}\thealth\tA\n' for i in ids)
    )
  with pytest.raises(ValueError, match="sentence 2 is '2' in en and '3' in sw"):
    evaluators.make(parallel, path=tmp_path, split='test')
  with pytest.raises(ValueError, match=r'has no eng_Latn/train\.tsv'):
    evaluators.make(parallel, path=tmp_path)
