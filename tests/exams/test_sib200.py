"""SIB-200: its prompts to the character, beside the harness, and bad files."""

import pytest

from lbe.evals import multiple_choice
from lbe.exams import sib200_prompts
from lbe.text import language_table
from lbe.vocab import tokenizers

import evaluators
import harness

HEAD = 'index_id\tcategory\ttext\n'
ROW = '7\thealth\t"A ""cold"" day"\n'


def make(folder, **changes):
  return evaluators.make(
    multiple_choice, path=folder, **{'protocol': 'sib200@labels', **changes}
  )


@pytest.fixture
def folder(tmp_path):
  """One sentence in English, and four to learn from in two topics."""
  root = tmp_path / 'sib200'
  (root / 'eng_Latn').mkdir(parents=True)
  (root / 'eng_Latn' / 'test.tsv').write_text(HEAD + ROW)
  (root / 'eng_Latn' / 'train.tsv').write_text(
    HEAD + '1\ttravel\tI\n2\ttravel\tII\n3\tsports\tIII\n4\ttravel\tIV\n'
  )
  return root


def test_prompts_are_what_the_page_says(folder, test_data):
  """The same demonstrations in each language, each topic in its turn."""
  (item,) = make(folder, num_shots=3).items
  assert item.context == (
    'What is the topic of the sentence? Choose one of: science/technology, '
    'travel, politics, sports, health, entertainment, geography\n\n'
    'Sentence: I\nTopic: travel\n\n'
    'Sentence: III\nTopic: sports\n\n'
    'Sentence: II\nTopic: travel\n\n'
    'Sentence: A "cold" day\nTopic:'
  )
  assert item.choices[item.gold[0]] == ' health'
  assert item.answers == sib200_prompts.TOPICS
  chinese = make(
    test_data / 'bench_sib200',
    protocol='sib200@labels_native',
    subjects=('zh',),
    num_shots=1,
    limit=1,
  ).items
  assert chinese[0].context == (
    '这个句子的主题是什么？请从下列选项中选择一个：科学/技术、旅游、政治、体育、'
    '健康、娱乐、地理\n\n'
    '句子：土耳其三面环海：西面是爱琴海，北面是黑海，南面则是地中海。\n'
    '主题：地理\n\n'
    '句子：突变会添加新的基因变异，而选择则会从表达的基因变异池中把变异移除。\n'
    '主题：'
  )
  assert chinese[0].choices[chinese[0].gold[0]] == '科学/技术'


def test_every_language_asks_the_same_in_its_own_words(test_data):
  """Seven different topics each; ids, topics and demonstrations are equal."""
  made = make(
    test_data / 'bench_sib200', protocol='sib200@labels_native', num_shots=7
  )
  by_language = {}
  for item in made.items:
    by_language.setdefault(item.group, []).append(item)
  assert set(by_language) == set(sib200_prompts.WORDS)
  assert set(by_language) == {*language_table.THIRTEEN, 'en', 'zh'}
  facts = {
    tuple((i.id.split('/')[1], i.gold) for i in items)
    for items in by_language.values()
  }
  assert len(facts) == 1 and len(next(iter(facts))) == 204
  for code, (item, *_) in by_language.items():
    assert len(set(item.answers)) == 7, code
    assert all(map(item.header.__contains__, item.answers)), code
    for shot, label in zip(item.shots, item.answers, strict=False):
      assert shot.count('\n') == 3 and shot[-2:] == '\n\n', (code, label)
    told = {shot.strip().rpartition('\n')[2] for shot in item.shots}
    assert len(told) == 7, code


def test_scores_are_those_of_the_harness_on_its_own_task_files(
  test_data, tmp_path
):
  """Two of its five prompts, and ours written as a task file."""
  folder = test_data / 'ckpt_stories260K' / 'hf'
  ours = harness.load_ours(folder)
  target = tmp_path / 'tokenizer'
  target.mkdir()
  harness.vocab_export.write(ours.tokenizer, target, max_positions=512)
  theirs = harness.load_theirs(folder, target, bos=True, batch_size=4)
  asked = {'lmeval_1': ['en'], 'lmeval_2': ['sw'], 'labels_native': ['zh']}
  tasks = [
    harness.sib200_task(tmp_path, test_data, code, variant, limit=2)
    for variant, codes in asked.items()
    for code in codes
  ]
  expected, _ = harness.run(theirs, tmp_path, tasks, num_fewshot=0)
  for variant, codes in asked.items():
    found = harness.own_equals(
      ours,
      test_data,
      'sib200',
      codes,
      expected,
      variant=variant,
      limit=2,
      bos=True,
    )
    assert found['answers_differ'] == 0
    assert found['largest_logprob_difference'] < 1e-4


def test_rows_are_by_language(test_data):
  """By topic they are in results alone; the answer is a word, not a letter."""
  model = harness.load_ours(test_data / 'ckpt_stories260K' / 'hf')
  made = make(test_data / 'bench_sib200', subjects=('sw', 'vi'), limit=8)
  found = made.evaluate(model, name='topics', step=None)
  rows = {r['name']: r for r in found.rows}
  assert rows['acc/sw']['count'] == 8 and 'average' in rows['acc/sw']
  assert set(found.metrics) >= {'acc', 'acc/sw', 'acc/vi', 'acc_norm/vi'}
  assert rows['acc']['most_chosen'] in sib200_prompts.TOPICS
  assert rows['acc/sw/science/technology']['of_subject']
  assert found.predictions[0]['id'] == 'sw/1523'


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'subjects': ('tam',)}, "'tam' is unknown; the nearest is 'ta'"),
    ({'subjects': ('ta',)}, r'has no tam_Taml/test\.tsv, where .*Tamil.*en'),
    ({'split': 'validation'}, 'has no eng_Latn/validation.tsv.*eng_Latn/test'),
    ({'protocol': 'sib200@own'}, 'is unknown; take one of'),
    ({'num_shots': 5}, 'has 4 sentences, and num_shots=5 asks for more'),
    (
      {'protocol': 'sib200@lmeval_1', 'num_shots': 1},
      'has no demonstrations, which the harness would draw',
    ),
    (
      {'protocol': 'sib200@lmeval_1', 'subjects': ('ta',)},
      "no SIB-200 task in 'ta', only in en, sw",
    ),
  ],
)
def test_what_is_not_there_is_named(folder, changes, message):
  if changes.get('subjects') == ('ta',) and 'protocol' in changes:
    (folder / 'tam_Taml').mkdir()
    (folder / 'tam_Taml' / 'test.tsv').write_text(HEAD + ROW)
  with pytest.raises(ValueError, match=message):
    make(folder, **changes)


@pytest.mark.parametrize(
  'text, message',
  [
    ('index_id\ttext\n7\tA day\n', r"test\.tsv has no column 'category'; it"),
    (HEAD + '7\tweather\tA day\n', r"line 2: the category 'weather' is none"),
    (HEAD + '7\thealth\t \n', 'line 2: the text is empty'),
    (HEAD + ROW + ROW, r"line 3: the id '7' stands in .*line 2 already"),
    (HEAD + '7\thealth\n', r'line 2: 2 values for the 3 columns'),
    (HEAD, 'has no sentences'),
  ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(
  folder, text, message
):
  (folder / 'eng_Latn' / 'test.tsv').write_text(text)
  with pytest.raises(ValueError, match=message):
    make(folder)


def test_a_language_without_a_prompt_is_told(folder, monkeypatch):
  monkeypatch.delitem(sib200_prompts.WORDS, 'en')
  with pytest.raises(ValueError, match="no prompt of SIB-200 in 'en'.*labels"):
    make(folder, protocol='sib200@labels_native')


def test_labels_that_a_tokenizer_cannot_tell_apart_are_refused(
  test_data, tmp_path
):
  """Without byte fallback all Tamil letters are the unknown piece."""
  import sentencepiece

  text = tmp_path / 'en.txt'
  text.write_text('the day was cold and the sun was low\n' * 50)
  sentencepiece.SentencePieceTrainer.train(
    input=str(text),
    model_prefix=str(tmp_path / 'latin'),
    vocab_size=40,
    model_type='bpe',
    hard_vocab_limit=False,
  )
  tokenizer = tokenizers.load(tmp_path / 'latin.model')
  made = make(
    test_data / 'bench_sib200',
    protocol='sib200@labels_native',
    subjects=('ta',),
    limit=1,
  )
  with pytest.raises(ValueError, match='cannot tell the labels .* apart'):
    made.check(tokenizer)
  made.check(tokenizers.load(test_data / 'tok_llama_32000'))
