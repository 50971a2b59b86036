"""Questions made for small models: what they hold, and what they may not."""

import collections
import json
import random

import pytest

from lbe.exams import own
from lbe.studies import frozen
from lbe.studies import probes


def test_a_fact_is_told_once_and_asked_in_two_languages():
  """Catches an answer that frequency or its place gives away."""
  told = probes.facts(100)
  assert told == probes.facts(100)
  assert told != probes.facts(100, seed=1)
  places = collections.Counter()
  for sentence, en, zh in zip(told[''], told['en'], told['zh'], strict=True):
    answer = en['choices'][en['answer']]
    assert sentence['text'] == f'{en["question"]} {answer}.'
    assert zh['choices'] == en['choices'] and zh['answer'] == en['answer']
    assert zh['question'].split('的')[0] in sentence['text']
    places[en['answer']] += 1
  assert len(places) == 4 and min(places.values()) > 10
  # Every choice is the answer to one question, of the same relation.
  right = {r['choices'][r['answer']]: r['question'] for r in told['en']}
  for record in told['en']:
    relation = record['question'].rsplit(' ', 2)[0]
    for choice in record['choices']:
      assert right[choice].rsplit(' ', 2)[0] == relation
  with pytest.raises(ValueError, match='facts=19.*ask for 20'):
    probes.facts(19)


def _text(draw, words, number):
  return ' '.join(draw.choice(words) for _ in range(number))


@pytest.mark.parametrize('join', [' ', ''], ids=['words', 'characters'])
def test_a_word_left_out_is_among_words_of_like_frequency(join):
  """Catches choices that frequency alone tells apart, or half a word."""
  draw = random.Random(0)
  letters = 'abcdefghijklm' if join else '的一是不了人我在有他这为之'
  units = [
    a + b if join else chr(ord(a) + ord(b) % 97)
    for a in letters
    for b in letters
  ]
  units = list(dict.fromkeys(units))
  weights = [1 / (i + 1) for i in range(len(units))]
  texts = [join.join(draw.choices(units, weights, k=120)) for _ in range(60)]
  questions = probes.cloze(texts, texts[:10], number=30)
  assert len(questions) == 30
  counts = collections.Counter(
    u for text in texts for u in (text.split() if join else text)
  )
  ranked = sorted(counts, key=lambda u: (-counts[u], u))
  for record in questions:
    answer = record['choices'][record['answer']]
    ranks = [ranked.index(choice) for choice in record['choices']]
    assert len(set(ranks)) == 4
    assert all(abs(r - ranked.index(answer)) <= 8 for r in ranks)
    assert min(ranks) >= 10
    goes_on = record['question'] + join + answer
    assert any(goes_on in text for text in texts[:10])
  with pytest.raises(ValueError, match='cloze=900.*give more or longer'):
    probes.cloze(texts, [texts[0][:30]], number=900)


def test_a_study_holds_its_probes_as_files(tmp_path):
  """Catches questions that the exam's reader does not take."""
  path = tmp_path / 'en.txt'
  draw = random.Random(1)
  words = [a + b for a in 'bdfgklmn' for b in 'aeiou']
  path.write_text('\n\n'.join(_text(draw, words, 60) for _ in range(40)))
  frozen.make(tmp_path, 'en', path=str(path), eval_documents=20)
  made = frozen.make(tmp_path, 'facts', facts=20)
  made |= frozen.make(tmp_path, 'cloze', cloze=20, of='en')
  assert {name: facts['records'] for name, facts in made.items()} == {
    'facts.jsonl': 20,
    'facts_en.jsonl': 20,
    'facts_zh.jsonl': 20,
    'cloze.jsonl': 20,
  }
  frozen.check(tmp_path, made)
  for name in ('facts_en', 'facts_zh', 'cloze'):
    file = tmp_path / 'files' / f'{name}.jsonl'
    records = [json.loads(line) for line in file.read_text().splitlines()]
    read = own.read(file)
    assert [q.gold for q in read] == [(r['answer'],) for r in records]
    assert [list(q.choices) for q in read] == [r['choices'] for r in records]
