"""A run's page: what its files say, and nothing that they do not."""

import json
import re

import pytest

from lbe.evals import run_page
from lbe.text import lines

import browser

EVIL = '</script><b>"&'


def score(step, name, value, evaluator='zh', **more):
  return {
    'step': step,
    'evaluator': evaluator,
    'protocol': 'perplexity@rolling',
    'name': name,
    'value': value,
    'count': 1234,
    **more,
  }


@pytest.fixture
def run(tmp_path):
  steps = [
    {'step': 0, 'eval/zh/bits_per_byte': 5.0},
    *({'step': i, 'train/loss': 6.0 / i} for i in range(1, 4001)),
  ]
  rows = [
    score(0, 'bits_per_byte', 5.0),
    score(0, 'perplexity', 90.0),
    score(4000, 'bits_per_byte', 3.0, interval95=[2.9, 3.1]),
    score(4000, 'perplexity', 20.0),
    score(4000, 'bits_per_byte', 2.0, evaluator='en', warning=EVIL),
    score(4000, 'bits_per_byte', None, evaluator='broken'),
  ]
  said = [
    {'step': s, 'evaluator': 'talk', 'id': 'p', 'prompt': '问', 'response': x}
    for s, x in ((0, EVIL), (4000, '你好'))
  ]
  for name, records in (
    ('metrics', steps),
    ('results', rows),
    ('predictions', said),
  ):
    text = ''.join(map(lines.line, records))
    (tmp_path / f'{name}.jsonl').write_text(text, 'utf-8')
  (tmp_path / 'config.json').write_text(json.dumps({'name': EVIL}), 'utf-8')
  return tmp_path


def test_the_page_has_what_the_run_left(run):
  """Catches a curve of another score, texts that run, a page of many MB."""
  path = run_page.write(run)
  text = path.read_text('utf-8')
  plots = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
  assert [p['title'] for p in plots] == [
    'bits per byte, by step',
    'Loss of training, nats a token',
  ]
  by_name = {c['name']: c['points'] for c in plots[0]['curves']}
  assert set(by_name) == {'zh', 'en'}
  assert [p['value'] for p in by_name['zh']] == [5.0, 3.0]
  assert by_name['zh'][1]['low'] == 2.9
  loss = plots[1]['curves'][0]['points']
  assert len(loss) <= 1500 and loss[-1] == {
    'x': 4000,
    'along': 4000,
    'value': 6 / 4000,
  }
  assert '<td>zh</td><td>bits_per_byte ↓</td>' in text
  assert 'data-value="5.0" title="step 0">5<' in text
  assert '<dt>step 0</dt>' in text and '你好' in text
  assert EVIL not in text and len(text) < 500_000
  assert not list(run.glob('*.tmp'))


def test_a_folder_that_is_no_runs_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r'has no metrics\.jsonl'):
    run_page.write(tmp_path)


@pytest.mark.skipif(not browser.CHROMIUM, reason='no chromium on PATH')
def test_the_page_fits_desktop_and_phone_without_an_error(run, tmp_path):
  """Catches a page that fails in a browser, is too wide, or asks for more."""
  url = run_page.write(run).as_uri()
  with browser.opened() as tab:
    for width, dark in ((1280, False), (390, True)):
      faults, asked = tab.look(url, width, dark=dark)
      assert not faults and all(x.startswith((url, 'data:')) for x in asked)
      assert tab.run("document.querySelectorAll('canvas').length") == 2
    tab.picture(tmp_path / 'page.png')
  assert (tmp_path / 'page.png').stat().st_size > 5_000
