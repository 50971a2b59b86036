"""Parts in another language than the one that was asked for."""

import random
import struct
import sys

import pytest

from lbe.text import language_table
from lbe.text import languages


def found(text, language, **more):
  spans = languages.switches(
    text, language_table.language(language).scripts, **more
  )
  return [(text[start:stop], name) for start, stop, name in spans]


def test_spans_of_other_scripts_are_found_where_they_stand():
  """Catches offsets into a changed text, and scripts that are joined."""
  text = (
    '用 `a b c`: 医疗费用很高, which is a problem。它是 первое место です！'
  )
  assert found(text, 'zh') == [
    ('which is a problem', 'Latin'),
    ('первое место', 'Cyrillic'),
    ('です', 'Hiragana'),
  ]
  assert found('बहुत अच्छा है 很好', 'hi') == [('很好', 'Han')]
  assert found('The answer is да of course', 'en') == [('да', 'Cyrillic')]


@pytest.mark.parametrize(
  'text',
  [
    '看：```python\nprint("hello there, my friends")\n```好了。',
    '没有结束的代码：```\nimport this and that from there',
    '用 `list of all the items` 就行。',
    '见 https://example.com/some/long-path 和 someone.else@example.com。',
    '2024年 3.14 ＋ 42%',
    '请用 GPT-4、iPhone 和 Donald Trump 的 CD。',
    '长度是 π，角度是 α 和 x。',
    '人々的中文々。',
  ],
)
def test_what_any_language_may_hold_is_no_switch(text):
  """Code, addresses, numbers, names and symbols are not a wrong language."""
  assert found(text, 'zh') == []


def test_what_the_prompt_holds_may_be_quoted():
  """A question about an English phrase is answered with the phrase."""
  text = '“carbon  footprint of food”是碳足迹; some other words'
  prompt = 'What is the Carbon footprint\nof food?'
  assert found(text, 'zh', prompt=prompt) == [('some other words', 'Latin')]
  assert found(text, 'zh')[0] == ('carbon  footprint of food', 'Latin')
  # One excused part must not excuse what follows in the same run.
  both = 'carbon footprint of food, and then some more。好'
  assert found(both, 'zh', prompt=prompt) == [('and then some more', 'Latin')]


def test_long_names_and_lower_case_words_are_switches():
  """The excuse for names must not swallow sentences."""
  assert found('他 said 好。', 'zh') == [('said', 'Latin')]
  assert found('好 The Great Gatsby Returns 好', 'zh')
  assert not found('好 The Great Gatsby 好', 'zh')


def test_languages_of_one_script_are_told_apart():
  """Scripts cannot see English in Indonesian; other scripts stay found."""
  pytest.importorskip('lingua')
  english = 'then I bought some fresh fruit for the whole family'
  text = f'Saya pergi ke pasar “é” 你好 dan {english} karena murah sekali.'
  segment = languages.segmenter('id', ('en',))
  assert found(text, 'id', segment=segment) == [
    ('你好', 'Han'),
    (english, 'en'),
  ]
  assert found(text, 'id', segment=segment, prompt=english) == [('你好', 'Han')]
  assert found(text, 'id') == [('你好', 'Han')]


def test_the_identifier_is_silent_where_it_cannot_know():
  """A name or a number must not count as a wrong language."""
  pytest.importorskip('lingua')
  identify = languages.identifier(('en', 'id'))
  assert identify('I went to the market to buy some fruit.') == 'en'
  assert identify('Saya pergi ke pasar untuk membeli buah.') == 'id'
  assert identify('terima kasih') == identify('Yes, 42!') == ''
  # Without a lead this is another language than English.
  identify = languages.identifier(('en', 'fr', 'de', 'es', 'id', 'vi'))
  assert identify('Hippopotamus (7 letters, 3 syllables)') in ('', 'en')


def test_names_are_no_switch_between_languages_of_one_script():
  """An Indonesian line full of English names would count as English."""
  pytest.importorskip('lingua')
  segment = languages.segment_of('lingua', 'id')
  names = (
    'Acara itu disiarkan oleh CBS, ABC, NBC, CNN, Fox News Channel dan MSNBC.'
  )
  assert found(names, 'id', segment=segment) == []
  english = 'which was then shown again on all of the other channels'
  ((text, code),) = found(f'{names} {english}.', 'id', segment=segment)
  assert 'shown again on all' in text and code == 'en'


@pytest.mark.parametrize('asked', ['id', 'vi', 'sw', 'hi'])
def test_clean_lines_are_rarely_flagged_and_pass_as_their_language(
  test_data, asked
):
  """Rates of 2 to 5% are looked for: the detector's own must be below."""
  pytest.importorskip('lingua')
  path = language_table.file('ntrex', test_data / 'text_ntrex', asked)
  # Others than the constants were chosen on.
  lines = path.read_text('utf-8').split('\n')[1000:1300]
  segment = languages.segment_of('lingua', asked)
  flagged = sum(bool(found(x, asked, segment=segment)) for x in lines)
  assert flagged <= 0.02 * len(lines)
  identify = languages.choose('lingua', {asked})
  right = sum(identify(x, asked) == asked for x in lines)
  assert right >= 0.95 * len(lines)


def test_a_script_that_is_not_the_languages_is_told_without_an_identifier():
  identify = languages.choose('scripts', {'zh', 'id'})
  assert identify('我很高兴', 'zh') == 'zh'
  assert identify('I am happy 我', 'zh') == 'Latin'
  assert identify('I am happy', 'id') == 'id'
  assert identify('1 + 1', 'id') == ''


def test_what_lingua_does_not_know_is_refused():
  """Nepali that is judged by Hindi's model would be wrong without a word."""
  pytest.importorskip('lingua')
  for ask in (
    lambda: languages.choose('lingua', {'ne'}),
    lambda: languages.segment_of('lingua', 'ne'),
  ):
    with pytest.raises(
      ValueError, match="does not know 'ne'; take the path of"
    ):
      ask()
  with pytest.raises(ValueError, match="'xx' is unknown; known are ar, bn"):
    languages.choose('scripts', {'xx'})


def write_fasttext(path, words):
  """A fastText model file where each word votes for one label: {word: label}.

  The layout is that of fastText's FastText::saveModel, version 12.
  """
  labels = sorted(set(words.values()))
  dim = len(labels)
  entries = [(w, 0) for w in words] + [(f'__label__{x}', 1) for x in labels]
  data = struct.pack('<2i', 793712314, 12)
  # dim, ws, epoch, minCount, neg, wordNgrams, softmax, supervised, bucket,
  # minn, maxn, lrUpdateRate, t
  data += struct.pack('<12id', dim, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
  data += struct.pack('<3i2q', len(entries), len(words), dim, len(words), -1)
  for text, kind in entries:
    data += text.encode() + b'\0' + struct.pack('<qb', 1, kind)
  for rows in (
    [[float(x == label) for x in labels] for label in words.values()],
    [[6.0 * (i == j) for j in range(dim)] for i in range(dim)],
  ):
    data += struct.pack('<?2q', False, len(rows), dim)
    data += b''.join(struct.pack(f'<{dim}f', *row) for row in rows)
  path.write_bytes(data)
  return str(path)


def test_a_fasttext_model_tells_languages_apart(tmp_path):
  """GlotLID's labels have three letters and a script; lid.176's two."""
  pytest.importorskip('fasttext')
  path = write_fasttext(
    tmp_path / 'lid.bin',
    {
      'saya': 'ind_Latn', 'pergi': 'ind_Latn', 'pasar': 'ind_Latn',
      'then': 'eng_Latn', 'bought': 'eng_Latn', 'some': 'eng_Latn',
      'fruit': 'eng_Latn', 'हुन्छ': 'npi_Deva', 'है': 'hin_Deva', 'we': 'fr',
    },
  )  # fmt: skip
  identify = languages.choose(path, {'id', 'ne'})
  assert identify('saya pergi ke pasar', 'id') == 'id'
  assert identify('then\nsome fruit', 'id') == 'en'
  assert identify('यो राम्रो हुन्छ', 'ne') == 'ne'
  assert identify('we', 'id') == 'fr'
  # Five labels, each with a score of 0.2.
  assert identify('saya then हुन्छ है we', 'id') == ''
  assert identify('123', 'id') == ''
  text = 'saya pergi ke pasar. then bought some fruit and more. saya pergi.'
  segment = languages.segment_of(path, 'id')
  assert found(text, 'id', segment=segment) == [
    ('then bought some fruit and more', 'en')
  ]
  (tmp_path / 'no.bin').write_text('hello')
  with pytest.raises(ValueError, match='no.bin is no fastText model'):
    languages.choose(str(tmp_path / 'no.bin'), {'id'})


def test_a_missing_fasttext_library_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'fasttext', None)
  (tmp_path / 'lid.bin').write_text('')
  with pytest.raises(ValueError, match=r"pip install 'lbe\[fasttext\]'"):
    languages.choose(str(tmp_path / 'lid.bin'), {'id'})


@pytest.mark.parametrize(
  'asked, other',
  [
    ('zh', 'en'),
    ('hi', 'en'),
    ('ar', 'zh'),
    ('en', 'hi'),
    ('zh', 'ar'),
  ],
)
def test_planted_words_of_another_script_are_found_in_real_lines(
  test_data, asked, other
):
  """F1 of at least 0.95, over lines with a planted part and lines without."""
  lines = {
    code: language_table.file('ntrex', test_data / 'text_ntrex', code)
    .read_text('utf-8')
    .split('\n')[:600]
    for code in (asked, other)
  }
  rng = random.Random(0)
  hits = wrong = missed = 0
  for i, line in enumerate(lines[asked]):
    start = stop = 0
    if i % 2:
      words = lines[other][i].split()
      at = rng.randrange(max(1, len(words) - 4))
      words = ' '.join(words[at : at + 5])
      start, stop = len(line) + 1, len(line) + 1 + len(words)
      line = f'{line} {words} {line}'
    spans = languages.switches(line, language_table.language(asked).scripts)
    right = sum(a < stop and b > start for a, b, _ in spans)
    hits += right > 0
    wrong += len(spans) - right
    missed += i % 2 and not right
  assert 2 * hits / (2 * hits + wrong + missed) >= 0.95
