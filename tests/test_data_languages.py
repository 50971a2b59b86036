"""Parts in another language than the one that was asked for."""

import random

import pytest

from lbe.data import languages


def found(text, language, **more):
  spans = languages.switches(text, languages.SCRIPTS[language], **more)
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


NTREX = {'en': 'src.eng', 'zh': 'ref.zho-CN', 'hi': 'ref.hin', 'ar': 'ref.arb'}


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
    code: (test_data / 'text_ntrex' / f'newstest2019-{name}.txt')
    .read_text('utf-8')
    .split('\n')[:600]
    for code, name in NTREX.items()
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
    spans = languages.switches(line, languages.SCRIPTS[asked])
    right = sum(a < stop and b > start for a, b, _ in spans)
    hits += right > 0
    wrong += len(spans) - right
    missed += i % 2 and not right
  assert 2 * hits / (2 * hits + wrong + missed) >= 0.95
