"""A study's report: its numbers, its tables, and its page in a real browser."""

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest

from lbe import report
from lbe.studies import folder
from lbe.studies import paper
from lbe.studies import summary

import browser

SCALES = (30_000, 300_000, 3_000_000)
EVIL = '</script><script>document.title="taken"</script><b>&'


def bits(axes, language):
  """Known scores: extension is ahead at first, and behind at the last scale."""
  if axes['stage'] == 'base':
    return {'zh': 5.0, 'en': 2.0}[language]
  doublings = math.log10(axes['scale_bytes'] / 30_000)
  if language == 'en':
    return 2.2 + 0.3 * doublings
  if axes['vocabulary'] == 'extended':
    return 4.0 - 0.2 * doublings
  return 4.3 - 0.5 * doublings


def cell(name, inputs, **axes):
  return {
    'name': name,
    'kind': 'train',
    'identity': f'i-{name}',
    'inputs': inputs,
    'axes': axes,
    'config': {},
  }


def term(weight, **axes):
  return {'weight': weight, 'cells': axes}


LARGEST = {'stage': 'pretrain', 'scale_bytes': SCALES[-1]}
CLAIMS = [
  {
    'name': 'C1',
    'claim': 'Extension does not pay.',
    'evaluator': 'zh',
    'metric': 'bits_per_byte',
    'terms': [
      term(1, vocabulary='extended', **LARGEST),
      term(-1, vocabulary='original', **LARGEST),
    ],
    'expect': 'greater',
    'margin': 0.01,
    'margin_of': 1,
    'published': '2.279 against 2.399',
  },
  {
    'name': 'C2',
    'claim': 'A base that cannot read gains.',
    'evaluator': 'zh',
    'metric': 'bits_per_byte',
    'terms': [
      term(1, vocabulary='original', **LARGEST),
      term(-1, stage='base'),
    ],
    'expect': 'less',
    'margin': 0.01,
    'guards': [{'kind': 'reads', 'below': 4.5, 'cells': {'stage': 'base'}}],
  },
]
PLOTS = [
  {
    'title': 'Chinese over its text',
    'x': 'scale_bytes',
    'y': 'zh/bits_per_byte',
    'along': 'scale_bytes',
    'by': ['vocabulary'],
    'log_x': True,
  },
  {
    'title': 'English over Chinese',
    'x': 'zh/bits_per_byte',
    'y': 'en/bits_per_byte',
    'along': 'scale_bytes',
    'by': ['vocabulary'],
  },
]


def write_scores(study, one, language, rng):
  value = bits(one['axes'], language)
  tokenizer = one['axes'].get('vocabulary', 'original')
  items = [
    {
      'id': f'{i}',
      'nats': (value + rng.normal(0, 0.01)) * 200 * math.log(2),
      'bytes': 200,
    }
    for i in range(40)
  ]
  got = sum(r['nats'] for r in items) / math.log(2) / 8000
  common = {
    'evaluator': language,
    'protocol': 'perplexity@rolling',
    'count': 40,
  }
  rows = [
    {**common, 'name': name, 'value': x, 'tokenizer': tokenizer}
    for name, x in (('bits_per_byte', got), ('perplexity', 2**got))
  ]
  record = {'identity': f'e-{language}', 'cell': one['identity'], 'rows': rows}
  folder.write_score(study, one['name'], language, record, items)


def write_samples(study, one):
  text = f'你好 hello {EVIL}'
  item = {
    'id': 'p1',
    'prompt': f'问 {EVIL}',
    'response': text,
    'spans': [{'start': 3, 'stop': 8, 'what': 'Latin', 'text': 'hello'}],
  }
  row = {
    'evaluator': 'talk',
    'protocol': 'code_switching@spans',
    'name': 'switched',
    'value': 1.0,
    'count': 1,
    'tokenizer': 'original',
  }
  record = {'identity': 'e-talk', 'cell': one['identity'], 'rows': [row]}
  folder.write_score(study, one['name'], 'talk', record, [item])


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """A finished study, but for one cell, with known scores."""
  study = tmp_path_factory.mktemp('study')
  cells = [cell(f'base-s{s}', {}, stage='base', seed=s) for s in range(3)]
  for vocabulary in ('original', 'extended'):
    for scale in SCALES:
      for s in range(3):
        cells.append(
          cell(
            f'{vocabulary}-{scale}-s{s}',
            {'init_from': f'base-s{s}'},
            stage='pretrain',
            vocabulary=vocabulary,
            scale_bytes=scale,
            seed=s,
          )
        )
  cells.append(cell('late', {'init_from': 'base-s0'}, stage='late', seed=0))
  folder.write(
    study,
    {
      'study': f'toy {EVIL}',
      'files': {'zh.jsonl': {'sha256': 'ab', 'records': 40, 'bytes': 8000}},
      'evals': {x: {'identity': f'e-{x}', 'fields': {}} for x in EVALS},
      'cells': cells,
      'claims': CLAIMS,
      'plots': PLOTS,
      'accepted': [],
    },
  )
  rng = np.random.default_rng(0)
  for one in cells[:-1]:
    folder.write_cell(
      study,
      one['name'],
      {
        'state': folder.DONE,
        'identity': one['identity'],
        'updates': 10,
        'seconds': {'wall': 5.0, 'train': 3.0},
        'seen': {'zh': {'documents': 3, 'tokens': 1000, 'bytes': 3000}},
      },
    )
    for language in ('zh', 'en'):
      write_scores(study, one, language, rng)
    write_samples(study, one)
  return study


EVALS = ('zh', 'en', 'talk')


@pytest.fixture(scope='module')
def found(study):
  return summary.make(study)


def test_verdicts(found):
  """Catches a claim that is decided by other cells than it names."""
  first, second = found['verdicts']
  assert (first['word'], second['word']) == ('supported', 'not measurable here')
  assert first['value'] == pytest.approx(0.3, abs=0.01)
  assert len(first['by_seed']) == 3 and first['num_units'] == 40
  assert found['limits'] and 'base-s0 cannot read' in found['limits'][0]
  assert report.verdict_lines(found).startswith('C1  SUPPORTED  Extension')


def test_perplexities_of_two_tokenizers_share_no_column(found):
  """Catches a table that compares perplexities by token across vocabularies."""
  heads = [c['head'] for c in found['columns']]
  assert heads.count('zh bits_per_byte') == 1
  assert {'zh perplexity (origin)', 'zh perplexity (extend)'} <= set(heads)
  for line in found['lines']:
    of = [k for k in line['scores'] if k.startswith('zh/perplexity/')]
    assert of == [f'zh/perplexity/{line["axes"].get("vocabulary", "original")}']


def test_seeds_are_a_mean_with_its_ends(found):
  line = next(x for x in found['lines'] if x['axes'].get('scale_bytes'))
  score = line['scores']['zh/bits_per_byte']
  assert len(score['seeds']) == 3
  assert score['low'] <= score['value'] <= score['high']
  assert score['value'] == pytest.approx(np.mean(score['seeds']))


def test_curves_cross_where_they_do(found):
  """Catches a crossing on a linear axis, or of points that others lack."""
  plot = found['plots'][0]
  assert [c['name'] for c in plot['curves']] == ['original', 'extended']
  assert [p['x'] for p in plot['curves'][0]['points']] == list(SCALES)
  # 4.3 − 0.5 x = 4.0 − 0.2 x at x = 1, ten times the first scale.
  assert plot['crossings'] == pytest.approx([300_000], rel=0.1)
  frontier = found['plots'][1]['curves'][0]['points']
  assert [round(p['x'], 1) for p in frontier] == [4.3, 3.8, 3.3]


def test_a_study_that_still_runs_has_a_report(found):
  assert found['states']['late'] == 'waiting'
  assert all(c['name'] != 'late' for c in found['cells'])


def copied(study, tmp_path, **evals):
  """The study elsewhere, with other identities of evaluators."""
  copy = shutil.copytree(study, tmp_path / 'copy')
  record = folder.read(copy)
  for name, identity in evals.items():
    record['evals'][name]['identity'] = identity
  folder.write(copy, record)
  return copy


def test_a_cell_that_one_evaluator_has_scored_decides_nothing_by_another(
  study, tmp_path
):
  """Catches a report that fails, or one seed less, while a study runs."""
  copy = copied(study, tmp_path)
  for name in ('extended-3000000-s1', 'base-s2'):
    (copy / 'cells' / name / 'scores' / 'zh.json').unlink()
  first, second = summary.make(copy)['verdicts']
  assert first['word'] == second['word'] == 'open'
  assert first['why'] == 'extended-3000000-s1 has not been scored by zh.'
  assert second['why'] == 'base-s2 has not been scored by zh.'


def test_items_of_an_evaluator_as_it_was_decide_nothing(study, tmp_path):
  """Catches tables by one evaluator and a verdict by the one before it."""
  copy = copied(study, tmp_path, zh='e-zh-anew')
  found = summary.make(copy)
  assert not any('zh bits' in c['head'] for c in found['columns'])
  why = 'original-3000000-s0 has not been scored by zh.'
  rng = np.random.default_rng(1)
  for one in folder.read(copy)['cells'][:-1]:
    if one['axes'].get('vocabulary') != 'original':
      write_scores(copy, one, 'zh', rng)
      path = copy / 'cells' / one['name'] / 'scores' / 'zh.json'
      score = json.loads(path.read_text('utf-8'))
      path.write_text(json.dumps(score | {'identity': 'e-zh-anew'}), 'utf-8')
  verdicts = summary.make(copy)['verdicts']
  assert [(v['word'], v['why']) for v in verdicts] == [('open', why)] * 2


def test_samples_of_an_evaluator_that_some_cells_have(study, tmp_path):
  """Catches a page without samples where the first cell has none."""
  copy = copied(study, tmp_path)
  for name in ('base-s0', 'original-300000-s1'):
    (copy / 'cells' / name / 'scores' / 'talk.json').unlink()
  (talk,) = summary.make(copy)['samples']
  shown = {of['cell'] for of in talk['prompts'][0]['of']}
  assert len(shown) == 19 and 'base-s0' not in shown


def test_samples_are_cut_at_parts_in_other_languages(found):
  (talk,) = found['samples']
  assert talk['prompts'][0]['of'][0]['pieces'][:2] == [
    ('你好 ', ''),
    ('hello', 'Latin'),
  ]


def test_files(study, found, tmp_path):
  """Catches a table that lacks cells, or texts that break out of a table."""
  pictures = report.draw(found, tmp_path)
  report.write_csv(found, tmp_path)
  text = report.markdown(found, pictures)
  assert pictures == ['plot1.svg', 'plot2.svg']
  assert all((tmp_path / name).stat().st_size > 1000 for name in pictures)
  scores = (tmp_path / 'scores.csv').read_text('utf-8')
  rows = list(csv.DictReader(scores.splitlines()))
  assert {r['cell'] for r in rows} == {c['name'] for c in found['cells']}
  row = next(r for r in rows if r['score'] == 'zh/bits_per_byte')
  assert (
    float(row['value']) == found['cells'][0]['scores'][row['score']]['value']
  )
  assert '| pretrain | extended | 3000000 | 3 |' in text
  assert '**C1: supported.**' in text


def test_the_papers_tables():
  """Catches a number of the paper that was mistyped, or a wrong mean."""
  quality, perplexity, languages = paper.published()
  marked = [r[0] for r in quality['rows'] if r[-2].endswith('*')]
  assert len(marked) == 6 and all(name.startswith('5K') for name in marked)
  last = next(r for r in quality['rows'] if r[0] == '5K: Open Chinese LLaMA')
  assert last[-2:] == ['2.245*', '2.059']
  assert not any(r[-2].endswith('*') for r in languages['rows'])
  assert ['LLaMA + 1M pretrain', '5.249', '198.840'] in perplexity['rows']
  # The means over languages that the paper prints are those of its rows.
  rows = paper.numbers()['languages']
  printed = rows.pop('average')
  assert np.mean(list(rows.values()), 0) == pytest.approx(printed, abs=0.0011)
  assert '| 1K: LLaMA | 0.482 | 1.194 |' in paper.markdown()


def test_a_folder_without_a_study_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r'holds no study\.json'):
    summary.make(tmp_path)


# What a reader does, and what became of it.
READER = """(async () => {
  const places = [...document.querySelectorAll('.plot')];
  places.forEach((place, i) => {
    const over = place.querySelector('.u-over');
    const box = over.getBoundingClientRect();
    const chart = drawn[i].chart, p = plots[i].curves[0].points[1];
    const at = { clientX: box.left + chart.valToPos(p.x, 'x'),
      clientY: box.top + chart.valToPos(p.value, 'y'), bubbles: true };
    over.dispatchEvent(new MouseEvent('mouseenter', at));
    over.dispatchEvent(new MouseEvent('mousemove', at));
  });
  await new Promise(done => setTimeout(done, 200));
  const said = { title: document.title, tips: places.map(place => {
    const tip = place.querySelector('.tip');
    return getComputedStyle(tip).display === 'block' ? tip.textContent : '';
  }) };
  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.querySelectorAll('thead th')];
    const number = heads.findIndex(h => h.textContent.includes('zh bits'));
    if (number < 0) continue;
    heads[number].click();
    said.sorted = [...table.tBodies[0].rows].map(
      row => +row.cells[number].dataset.value);
  }
  return said;
})()"""


@pytest.mark.skipif(not browser.CHROMIUM, reason='no chromium on PATH')
def test_the_page_in_a_browser(found, tmp_path):
  """Catches a page that fails, asks for something, or lets a text run."""
  text = report.html(found, paper.published())
  assert not re.search(r'(src|href)="(?!data:)', text)
  assert "default-src 'none'" in text
  assert len(text.encode()) < 2_000_000
  path = tmp_path / 'report.html'
  path.write_text(text, 'utf-8')
  with browser.opened() as tab:
    for width, dark in ((1280, False), (400, True)):
      faults, _ = tab.look(path.as_uri(), width, dark=dark)
      assert not faults, (width, faults)
      assert tab.run("document.querySelectorAll('.plot canvas').length") == 2
      said = tab.run(READER)
      assert said['title'].startswith('toy </script>')
      assert all('zh/bits_per_byte' in x for x in said['tips'])
      assert said['sorted'] == sorted(said['sorted'])
      assert len(said['sorted']) == 7
