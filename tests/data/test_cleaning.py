"""Cleaning: each rule, what it counts, and what it must leave alone."""

import dataclasses
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from lbe.configs import common
from lbe.data import cleaning
from lbe.data import contamination
from lbe.data import order

import conftest


def pair(output, instruction='Name a colour.', **more):
  return {'instruction': instruction, 'input': '', 'output': output, **more}


def run(records, **rules):
  """(places of what is kept, report)."""
  report = cleaning.Report()
  numbered = [(r, f'x.jsonl:{i}') for i, r in enumerate(records)]
  kept = list(cleaning.clean(numbered, cleaning.Rules(**rules), report))
  assert (
    report.total == len(records) == report.kept + sum(report.removed.values())
  )
  assert len(kept) == report.kept
  places = [int(where.split(':')[1]) for _, where in kept]
  assert [records[i] for i in places] == [record for record, _ in kept]
  return places, report


CHAT = [
  {'role': 'system', 'content': 'Be kind.'},
  {'role': 'user', 'content': 'Hello?'},
  {'role': 'assistant', 'content': 'Good morning.'},
  {'role': 'user', 'content': 'And the weather?'},
]
# A rule, records that break it, and records that come close.
CASES = {
  'empty': (
    dict(drop_empty=True),
    [pair(' \n'), pair('Red.', ''), {'text': ' '}, {'messages': CHAT[:2]}],
    [
      pair('.'),
      {'text': 'a'},
      {'messages': CHAT[:3]},
      pair('1', '', input='2'),
    ],
  ),
  'length': (
    dict(min_characters=3, max_characters=6),
    [pair('ab '), pair('1234567'), {'text': '字' * 7}, {'messages': CHAT}],
    [pair('abc'), pair(' 123456 '), {'text': '字' * 6}],
  ),
  'template text': (
    dict(drop_templates=True),
    [
      pair('Red.\n\n### Response: Blue.'),
      pair('Red.<|im_end|>'),
      pair('Red.\nHuman: and now?'),
      pair('[INST] Red.'),
    ],
    [
      pair('A Human: that is a person.'),
      pair('# Response times'),
      {'text': '### Response: is what they write before it.'},
    ],
  ),
  'echo': (
    dict(drop_echoes=True),
    [pair('Name  a long colour. Red.', 'Name a long\ncolour.')],
    [pair('Hello! You too.', 'Hello!'), {'text': 'Name a long colour.'}],
  ),
  'repetition': (
    dict(max_repetition=0.3),
    [pair('I do not know that. ' * 9), {'text': '没有什么可以说的，' * 9}],
    [pair('no ' * 5), {'text': 'One two three. Four five six. One two three.'}],
  ),
  'unfinished': (
    dict(unfinished_from=10),
    [
      pair('These are red and'),
      pair('这些是红色的，还有一些是蓝'),
      pair('a, b, c, d,'),
      pair('यह एक बहुत अच्छी बात है'),
      pair('هذه جملة لم تنته بعد،'),
    ],
    [
      pair('यह एक बहुत अच्छी बात है।'),
      pair('These are red.'),
      pair('这些是红色的，没有蓝色。'),
      pair('red'),
      pair('(These are red)'),
      {'text': 'Plain text has no end'},
    ],
  ),
  'script': (
    dict(scripts=('Han',), min_script_share=0.5),
    [pair('Blue, 蓝.'), {'text': 'привет'}],
    [pair('蓝色 it'), pair('42'), {'text': '你好'}],
  ),
}


@pytest.mark.parametrize('rule', CASES)
def test_a_rule_takes_what_breaks_it_and_nothing_else(rule):
  """Catches a rule that never fires, and one that is too eager."""
  rules, broken, fine = CASES[rule]
  kept, report = run([*broken, *fine], **rules)
  assert kept == list(range(len(broken), len(broken) + len(fine)))
  assert report.removed == {rule: len(broken)}
  assert [s['where'] for s in report.samples[rule]] == [
    f'x.jsonl:{i}' for i in range(len(broken))
  ]


def test_without_rules_every_record_stays():
  """Every field of the config is off by default."""
  records = [pair(''), pair(''), {'text': ''}, {'messages': []}]
  rules = common.cleaning().to_dict()
  assert run(records, **rules) == (
    [0, 1, 2, 3],
    cleaning.Report(total=4, kept=4),
  )
  fields = {f.name for f in dataclasses.fields(cleaning.Rules)}
  assert set(rules) == fields


def test_the_first_of_equal_texts_stays():
  """NFC and white space must not tell two texts apart; words must."""
  records = [
    {'text': 'Café au lait'},
    {'text': 'Tea'},
    {'text': ' Cafe\u0301  au\nlait '},
    {'text': 'tea'},
    {'text': 'Tea'},
  ]
  kept, report = run(records, drop_duplicates=True)
  assert kept == [0, 1, 3]
  assert report.removed == {'duplicate': 2}


def test_answers_to_different_questions_are_no_duplicates():
  """The whole record counts: prompt, input, system message and all turns."""
  records = [
    pair('Yes.', 'Is it red?'),
    pair('Yes.', 'Is it blue?'),
    pair('Yes.', 'Is it red?', input='A rose.'),
    {'messages': CHAT[:3]},
    {'messages': CHAT[1:3]},
    {'messages': CHAT[:3]},
  ]
  assert run(records, drop_duplicates=True)[0] == [0, 1, 2, 3, 4]


def alpaca(test_data, pattern, number):
  path = next((test_data / 'sft_alpaca_en_zh').glob(pattern))
  records = json.loads(path.read_text(encoding='utf-8-sig'))
  # Long enough that a word or two is a small part of them.
  return [r for r in records if len(r['output']) > 100][:number]


def edited(record, rng):
  """The record with three of its response's characters replaced."""
  output = list(record['output'])
  for _ in range(3):
    output[rng.randrange(len(output))] = rng.choice('xyz，的')
  return {**record, 'output': ''.join(output)}


@pytest.mark.parametrize(
  'pattern', ['en_original/*-0-3252-*', 'zh_translated/*-0-3252-*']
)
def test_near_duplicates_are_found_in_real_data(test_data, pattern):
  """At most 2% of planted copies stay, and 1% of the rest goes."""
  pytest.importorskip('rensa')
  records = alpaca(test_data, pattern, 800)
  rng = random.Random(1)
  copies = [edited(r, rng) for r in records[:400]]
  mixed = [*records, *copies]
  kept, report = run(mixed, near_duplicates=0.7)
  found = set(range(len(mixed))) - set(kept)
  planted = set(range(len(records), len(mixed)))
  assert len(found & planted) >= 0.98 * len(planted)
  assert len(found - planted) <= 0.01 * len(records)
  assert kept == sorted(kept)
  # Each sample names the record that it is like.
  last = report.samples['near duplicate'][-1]
  original = int(last['where'].split(':')[1]) - len(records)
  assert last['why'] == f'like x.jsonl:{original}'


def test_near_duplicates_are_the_same_in_every_process(test_data):
  """Catches a hash that Python salts anew in each process."""
  pytest.importorskip('rensa')
  code = (
    'import pathlib, random, sys\n'
    'import test_cleaning as t\n'
    'path = pathlib.Path(sys.argv[1])\n'
    'data = t.alpaca(path, "en_original/*-0-3252-*", 200)\n'
    'data += [t.edited(r, random.Random(i)) for i, r in enumerate(data)]\n'
    'print(t.run(data, near_duplicates=0.93)[0])\n'
  )
  tests = conftest.ROOT / 'tests'
  path = [*map(str, (conftest.ROOT, tests, tests / 'data')), *sys.path]
  printed = [
    subprocess.run(
      [sys.executable, '-c', code, test_data],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(path)},
      check=True,
      capture_output=True,
    ).stdout
    for _ in range(2)
  ]
  assert printed[0] == printed[1]
  assert 200 < len(json.loads(printed[0])) < 400


def test_bands_find_pairs_at_the_threshold():
  """The library's own number of bands loses most pairs at 0.8."""
  assert [cleaning._num_bands(t, 128) for t in (0.5, 0.7, 0.8, 0.9)] == [
    64,
    32,
    16,
    16,
  ]
  assert cleaning._num_bands(0.01, 128) == 128
  assert cleaning._num_bands(1.0, 128) == 1


def test_questions_of_ceval_and_mmlu_are_found_wherever_they_stand(test_data):
  """Planted questions go, each named; novels and stories stay."""
  benchmarks = {
    'ceval': common.benchmark(path=str(test_data / 'bench_ceval/val')),
    'mmlu': common.benchmark(
      path=str(test_data / 'bench_mmlu_2020/val'), columns=('0',)
    ),
  }
  long = [
    texts[0]
    for name, fields in benchmarks.items()
    for _, texts in contamination.items(name, **fields.to_dict())
    if len(texts[0]) > 100
  ]
  assert len(long) > 500
  planted = [
    {'text': f'Quiz of the day!  {q.upper()} Any idea?'} for q in long[::2]
  ] + [pair('B', q) for q in long[1::2]]
  novel = (test_data / 'text_zh_novels/红楼梦.txt').read_text('utf-8')
  plays = (test_data / 'text_en_tinyshakespeare/input.txt').read_text()
  clean = [{'text': t} for t in (novel[:400_000] + plays[:400_000]).split('\n')]
  kept, report = run([*planted, *clean], benchmarks=benchmarks)
  assert kept == list(range(len(planted), len(planted) + len(clean)))
  assert report.removed == {'benchmark': len(long)}
  assert report.samples['benchmark'][0]['why'].startswith('ceval: val/')
  assert report.benchmarks['ceval']['items'] == 1346


def hits(item, text):
  return contamination.Index([('it', [item])]).find(text) == 'it'


def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_not():
  """GPT-3's rule to the word, with case and punctuation aside."""
  words = [f'w{i}' for i in range(40)]
  item = ' '.join(words)
  assert hits(item, 'So: ' + ', '.join(words[20:33]).upper() + '!')
  assert not hits(item, ' '.join(words[20:32]))
  assert not hits(item, ' '.join([*words[:12], 'x', *words[12:24]]))
  # A shorter item counts as a whole, from eight words on.
  eight = ' '.join(words[:8])
  assert hits(eight, f'see {eight} there')
  assert not hits(' '.join(words[:9]), eight)
  assert not hits(' '.join(words[:7]), ' '.join(words))


def test_two_characters_weigh_a_word_where_no_spaces_are_written():
  """Catches Chinese that counts as one word, and Hindi cut at vowel signs."""
  text = ''.join(chr(0x4E00 + i) for i in range(60))
  assert hits(text, f'「{text[10:36]}」')
  assert not hits(text, text[10:35])
  assert hits(text[:16], f'{text[:16]}。') and not hits(text[:15], text)
  # Eleven words and four characters are thirteen words.
  mixed = ' '.join(f'w{i}' for i in range(11))
  assert hits(f'{mixed} 一二三四五', f'{mixed} 一二三四')
  assert not hits(f'{mixed} 一二三四五', f'{mixed} 一二三六')
  hindi = 'हिन्दी भारत की एक भाषा है'
  assert not hits(hindi, hindi)


def test_benchmarks_are_read_from_jsonl_json_and_csv(tmp_path):
  """Lists of options, objects around a list, and CSV without a head."""
  (tmp_path / 'a.jsonl').write_text('{"q": "one", "o": ["x", "y"]}\n\n')
  (tmp_path / 'b.json').write_text('{"k": 1, "all": [{"q": "two", "o": null}]}')
  (tmp_path / 'c.csv').write_text('\ufeffq,o\n"th\nree",z\n', encoding='utf-8')
  found = dict(contamination.items('it', tmp_path, ('q', 'o')))
  assert [[*texts] for texts in found.values()] == [
    ['one', 'x\ny'],
    ['two', ''],
    ['th\nree', 'z'],
  ]
  name = tmp_path.name
  assert list(found)[2] == f'it: {name}/c.csv, item 1'
  bare = contamination.items('it', tmp_path / 'c.csv', ('0',))
  assert [texts for _, texts in bare] == [['q'], ['th\nree']]


def test_code_is_no_script_of_a_response():
  """A Chinese answer with a program in it is Chinese."""
  code = '```python\nprint("a long line of Latin letters")\n```'
  record = {'instruction': '写代码', 'output': f'代码如下：{code}'}
  rules = cleaning.Rules(scripts=('Han',), min_script_share=0.5)
  report = cleaning.Report()
  assert list(cleaning.clean([(record, 'a:1')], rules, report)) == [
    (record, 'a:1')
  ]
  record['output'] = 'Only English with 中文'
  assert not list(cleaning.clean([(record, 'a:1')], rules, report))


def test_another_language_in_the_same_script_is_found():
  """The script rule cannot tell Indonesian from English."""
  pytest.importorskip('lingua')
  records = [
    {'text': 'Saya pergi ke pasar pagi ini untuk membeli buah dan sayur.'},
    {'text': 'I went to the market this morning to buy fruit and greens.'},
    {'text': 'OK, 42!'},
  ]
  kept, report = run(records, language='id', other_languages=('en', 'vi'))
  assert kept == [0, 2]
  assert report.samples['language'][0]['why'] == 'en'


def test_a_record_counts_under_the_first_rule_it_breaks():
  """Counts of rules must add up to what is missing."""
  records = [pair(''), pair(''), pair('Red.'), pair('Red.'), pair('xx')]
  _, report = run(
    records, drop_empty=True, min_characters=3, drop_duplicates=True
  )
  assert report.removed == {'empty': 2, 'length': 1, 'duplicate': 1}
  assert report.kept == 1


def test_records_stream_through():
  """A corpus is larger than memory: nothing is read ahead."""
  read = []

  def records():
    for i in range(5):
      read.append(i)
      yield {'text': f'{i}'}, f'{i}'

  stream = cleaning.clean(
    records(), cleaning.Rules(drop_duplicates=True), cleaning.Report()
  )
  assert next(stream)[1] == '0' and read == [0]


def test_the_report_is_written_as_json_and_as_a_table(tmp_path):
  """Twenty samples of a rule at most, and no cell that breaks the table."""
  records = [pair(f'a | b\n{i}') for i in range(30)]
  _, report = run(records, max_characters=3, drop_empty=True)
  report.write(tmp_path / 'told')
  told = json.loads((tmp_path / 'told/cleaning.json').read_text('utf-8'))
  assert told['removed'] == {'empty': 0, 'length': 30}
  assert len(told['samples']['length']) == cleaning.NUM_SAMPLES
  table = (tmp_path / 'told/cleaning.md').read_text('utf-8')
  assert '| length | 30 | 100.00% |\n' in table
  assert '| x.jsonl:3 | 7 characters | a \\| b 3 |\n' in table


@pytest.mark.parametrize(
  'rules, told',
  [
    (dict(near_duplicates=80), 'near_duplicates=80 is no share'),
    (dict(min_characters=-1), 'min_characters=-1 is too small'),
    (dict(min_characters=9, max_characters=8), 'max_characters=8 lies below'),
    (dict(scripts=('Hann',), min_script_share=0.5), "'Hann' .* as Han"),
    (dict(scripts=('Han',)), 'only work together'),
    (dict(shingle=0), 'shingle=0 is too small'),
  ],
)
def test_settings_that_cannot_be_meant_are_refused(rules, told):
  """Such a rule would remove nothing, or everything, without a word."""
  with pytest.raises(ValueError, match=f'cleaning.*{told}'):
    cleaning.Rules(**rules)


@pytest.mark.parametrize(
  'record, told',
  [
    ({'question': 'a'}, "x.jsonl:0: a record has .* has 'question'"),
    ({'text': 3}, "the field 'text' holds 3, which is no text"),
    (pair(['a']), "the field 'output' holds"),
    ({'messages': 'Hello'}, "'messages' holds 'Hello'; it is a list"),
    ({'messages': [{'from': 'x'}]}, "objects with 'role' and 'content'"),
  ],
)
def test_a_record_of_another_form_names_its_place(record, told):
  """A wrong field must not pass as an empty text."""
  with pytest.raises(ValueError, match=told):
    run([record], drop_empty=True)


@pytest.mark.parametrize(
  'name, text, columns, told',
  [
    ('a.csv', 'id,question\n1,x\n', ('text',), 'no column .text.; it has id'),
    ('a.csv', 'id,question\n1,x\n', (), r'columns=\(\) names none'),
    ('a.jsonl', '{"q": 1}\n{', ('q',), 'a.jsonl cannot be read'),
    ('a.json', '{"q": 1}', ('q',), 'no list of items'),
    ('a.jsonl', '"q"\n', ('q',), 'item 1 is no object'),
    ('a.txt', 'q', ('q',), 'is no .jsonl'),
  ],
)
def test_a_benchmark_that_cannot_be_read_is_refused(
  tmp_path, name, text, columns, told
):
  """An unread benchmark would look like a clean corpus."""
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=f'(?s)^(benchmark )?it: .*{told}'):
    list(contamination.items('it', tmp_path / name, columns))


def test_a_language_that_is_not_known_is_refused():
  """Names what lingua knows instead."""
  pytest.importorskip('lingua')
  with pytest.raises(ValueError, match="'ml' is not known to lingua.*, mr,"):
    run([{'text': 'a'}], language='ml', other_languages=('hi',))


@pytest.mark.parametrize(
  'package, rules',
  [('rensa', dict(near_duplicates=0.8)), ('lingua', dict(language='en'))],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, rules):
  """A rule that cannot run must not be passed over."""
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(ValueError, match=r"pip install 'lbe\[clean\]'"):
    run([{'text': 'a'}], **rules)


def test_subsets_by_examples_bytes_and_tokens_are_nested():
  """The 1K set lies inside the 5K set, and starts it, whatever is counted."""
  rng = np.random.default_rng(0)
  hashes = np.array([order.text_hash(f'{i}') for i in range(300)], np.uint64)
  sizes = rng.integers(1, 100, 300)
  for seed in (0, 1):
    whole, _ = order.subset(hashes, seed=seed)
    texts = [f'{i}' for i in range(300)]
    assert (whole == order.document_order(texts, seed=seed)).all()
    for limit in (1, 50, 299, 1000):
      taken, _ = order.subset(hashes, seed=seed, max_documents=limit)
      assert (taken == whole[:limit]).all() and len(taken) == min(limit, 300)
    for limit in (1, 100, 7000, 10**9):
      taken, _ = order.subset(hashes, seed=seed, limits=[(limit, sizes)])
      assert (taken == whole[: len(taken)]).all()
      # The last one reaches the limit, and the one before did not.
      assert sizes[taken[:-1]].sum() < limit
      assert sizes[taken].sum() >= min(limit, sizes.sum())


def test_a_document_in_pieces_is_taken_whole():
  """A limit of tokens that falls into a long document must not cut it."""
  hashes = np.repeat(np.array([7, 8, 9], np.uint64), [2, 3, 2])
  documents = np.repeat([0, 1, 2], [2, 3, 2])
  lengths = np.full(7, 10)
  for limit in range(1, 71):
    taken, numbers = order.subset(
      hashes, seed=0, documents=documents, limits=[(limit, lengths)]
    )
    counts = np.bincount(documents[taken], minlength=3)
    assert set(counts) <= {0, 2, 3}
    assert counts.sum() >= limit / 10
    assert numbers[-1] + 1 == (counts > 0).sum()
