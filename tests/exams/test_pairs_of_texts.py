"""What a pair is: files that are read, and sentences with an exchange."""

import json

import pytest

from lbe.exams import pairs
from lbe.text import language_table
from lbe.text import scripts

GOOD = {'good': 'The dog sees us.', 'bad': 'The dog see us.', 'by': 'verbs'}


def write(path, records):
  path.write_text('\n'.join(json.dumps(r) for r in records), encoding='utf-8')
  return path


def own(path, **changes):
  fields = dict(sides=('good', 'bad'), parts=('by',), limit=0)
  return pairs.own(path, **fields | changes)


def test_json_lines_and_tables_are_the_same_pairs(tmp_path):
  lines = own(write(tmp_path / 'a.jsonl', [GOOD, GOOD]))
  table = tmp_path / 'a.tsv'
  table.write_text(
    'by\tgood\tbad\n' + 'verbs\tThe dog sees us.\tThe dog see us.\n' * 2
  )
  assert [p[1:] for p in lines] == [p[1:] for p in own(table)]
  assert lines[0] == ('a.jsonl:1', GOOD['good'], GOOD['bad'], ('verbs',))
  assert len(own(table, limit=1)) == 1


BAD = [
  ([GOOD, GOOD | {'bad': GOOD['good']}], 'p.jsonl:2: .* are the same text'),
  ([GOOD, {'good': 'a'}], "p.jsonl:2: the field 'bad' is missing"),
  ([GOOD | {'bad': ' '}], "p.jsonl:1: the field 'bad' is empty"),
  ([GOOD | {'bad': 3}], "p.jsonl:1: the field 'bad' is int"),
  ([GOOD | {'by': None}], "p.jsonl:1: the field 'by' is NoneType"),
  ([[1]], 'p.jsonl:1: list'),
  ([], 'has no pairs'),
]


@pytest.mark.parametrize('records, error', BAD, ids=[e for _, e in BAD])
def test_what_is_no_pair_is_told_with_its_line(tmp_path, records, error):
  with pytest.raises(ValueError, match=error):
    own(write(tmp_path / 'p.jsonl', records))


def test_a_column_that_is_missing_is_told(tmp_path):
  table = tmp_path / 'p.tsv'
  table.write_text('good\tworse\tby\na\tb\tc\n')
  with pytest.raises(
    ValueError, match="line 2: the field 'bad' is missing .*good, worse"
  ):
    own(table)
  table.write_text('good\tbad\tby\na\tb\n')
  with pytest.raises(ValueError, match='line 2: 2 values for the 3 columns'):
    own(table)
  with pytest.raises(ValueError, match='is no file'):
    own(tmp_path / 'none.tsv')


def test_blimp_is_read_whole(test_data, tmp_path):
  """Catches a refusal of its own seven pairs that are none."""
  found = pairs.blimp(test_data / 'bench_blimp', limit=0)
  assert len(found) == 67_000
  assert sum(p.good == p.bad for p in found) == 7
  by_part = [{p.parts[i] for p in found} for i in range(3)]
  # 'syntax/semantics' is 'syntax_semantics', as in most of its files.
  assert list(map(len, by_part)) == [4, 13, 67]
  assert found[1000].id == 'anaphor_gender_agreement/0'
  with pytest.raises(ValueError, match=r'no file PARADIGM\.jsonl'):
    pairs.blimp(tmp_path, limit=0)


def made(*texts, seed=0, limit=0):
  return pairs.swapped(texts, limit=limit, seed=seed)


EXCHANGES = {
  # Never the first unit, nor what a mark or a digit is at the border of.
  'Yes, 12 dogs bark at us now.': [
    'Yes, 12 bark dogs at us now.',
    'Yes, 12 dogs at bark us now.',
    'Yes, 12 dogs bark us at now.',
  ],
  'It had had a dog': ['It had a had dog', 'It had had dog a'],
  "He can't well-known  us": [
    "He well-known can't  us",
    "He can't us  well-known",
  ],
  '他说好好的。': ['他好说好的。', '他说好的好。'],
  # Thai vowels stay above their letters; a Latin word stays among Han.
  'กินข้าว': ['กิข้นาว', 'กินาข้ว', 'กินข้วา'],
  '我用 iPhone 手机吧': ['我用 iPhone 机手吧', '我用 iPhone 手吧机'],
  'नमस्ते यह किताब है': ['नमस्ते किताब यह है', 'नमस्ते यह है किताब'],
}


@pytest.mark.parametrize('sentence', EXCHANGES)
def test_two_neighbours_are_exchanged(sentence):
  drawn = {made(sentence, seed=seed)[0].bad for seed in range(40)}
  assert drawn == set(EXCHANGES[sentence])


def test_pairs_depend_on_the_sentences_alone():
  """Catches pairs by order: a run on more text scores the same pair anew."""
  texts = [
    f'One {a} and {b} more of it. So {b} is {a} to us!'
    for a in 'abc'
    for b in 'xyz'
  ]
  found = made(*texts)
  assert len(found) == 18
  assert found == made(*texts[::-1]) == made('\n'.join(texts), *texts)
  assert made(*texts, limit=5) == found[:5]
  assert made(*texts, seed=1) != found
  with pytest.raises(ValueError, match='no sentence of at most 200'):
    made('too short', 'a ' * 101)


def test_sentences_end_as_their_scripts_write_it():
  text = (
    'A b c d. E f g h? 他是好人！她也是。 यह एक किताब है। हम सब यहाँ हैं।\n'
    'வணக்கம் a b c'
  )
  goods = {p.good for p in made(text)}
  assert goods == {
    'A b c d.',
    'E f g h?',
    '他是好人！',
    '她也是。',
    'यह एक किताब है।',
    'हम सब यहाँ हैं।',
    'வணக்கம் a b c',
  }


def test_the_table_of_languages_says_what_units_are():
  """Catches words that the table and the exchange part in two ways."""
  for known in language_table.LANGUAGES.values():
    letters = [x for x in known.name if scripts.is_letter(x)]
    assert all(scripts.has_spaces(x) == known.spaces for x in letters), known
