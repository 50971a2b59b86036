"""The model card of an export says what is known, and no path."""

import json

from configs import language
from lbe.convert import card

META = {
  'step': 60,
  'source': {'base': '/home/someone/models/llama-7b'},
  'config': {'num_steps': 100},
}


def meta(stage):
  config = language.get_config(f'ta,{stage}')
  for source in config.data.sources.values():
    source.path = '/home/someone/secret/ta.txt'
  facts = {'config': config.to_dict(), **META['config']}
  return {**META, 'config': facts}


def test_the_card_has_base_data_and_the_format():
  """Catches a card that invents a licence or gives away where things lay."""
  text = card.text(meta('instruct'), [], adapter=True)
  assert text.startswith('---\nlanguage:\n- ta\nlibrary_name: peft\n')
  assert 'trained on from `llama-7b`' in text
  assert 'Licence: to be filled in' in text and '\nlicense:' not in text
  assert 'written as `bactrian_x`' in text
  assert '60 of 100 steps of 128 rows of 768 tokens' in text
  assert 'adapters (LoRA)' in text
  assert '/home' not in text
  text = card.text(meta('pretrain'), [], adapter=False)
  assert 'library_name: transformers\n' in text and 'written as' not in text
  assert '| en | 20% | text |\n| ta | 80% | text |' in text


def test_a_step_is_named_by_its_run(tmp_path):
  """A base that is called `200`."""
  assert card.shown(tmp_path / 'zh' / 'checkpoints' / '200') == 'zh/200'
  assert card.shown(tmp_path / 'zh') == 'zh'


def test_an_import_has_a_card_too():
  text = card.text({**META, 'config': None}, [], adapter=False)
  assert '## Training' not in text


def test_the_scores_are_those_of_the_exported_step(tmp_path):
  """Catches scores of another step, and a card that was there lost."""
  rows = [
    {
      'evaluator': 'ta',
      'protocol': 'perplexity@rolling',
      'name': name,
      'value': 1.5,
      'count': 1000,
      'step': step,
      **more,
    }
    for name, step, more in (
      ('bits_per_byte', 40, {'interval95': [9.0, 9.5]}),
      ('bits_per_byte', 60, {'interval95': [1.25, 1.75]}),
      ('perplexity', 60, {}),
    )
  ]
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'results.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n')
  for _ in range(2):
    card.write(
      tmp_path, run / 'checkpoints' / '60', meta('pretrain'), adapter=False
    )
    text = (tmp_path / 'README.md').read_text('utf-8')
    assert text.count('perplexity@rolling') == 1
    assert '| bits_per_byte | 1.5000 | 1.2500 to 1.7500 | 1,000 |' in text
    (tmp_path / 'README.md').write_text(text + 'mine')
  assert text.endswith('mine')
