"""lbe.generate and its prompts: what a user types, and what comes out."""

import builtins
import json
import re

import pytest
from absl import flags
from absl.testing import flagsaver

from lbe import generate
from lbe.chat import prompts
from lbe.run import progress
from lbe.vocab import tokenizers

if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope='module')
def folder(test_data):
  return str(test_data / 'ckpt_stories260K' / 'hf')


def run(folder, **changes):
  with flagsaver.flagsaver(
    **{'model': folder, 'max_new_tokens': 12, **changes}
  ):
    generate.main([])


def lines(path):
  return [json.loads(x) for x in path.read_text('utf-8').split('\n')[:-1]]


def write(path, records):
  text = ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in records)
  path.write_text(text, encoding='utf-8')
  return str(path)


RECORDS = [
  {'prompt': 'Once upon a time'},
  {'prompt': 'Tom', 'id': 'tom', 'kind': 'name'},
  {'prompt': 'The big dog ran and ran'},
  {'prompt': '猫'},
]


def test_a_prompt_is_gone_on_with(folder, test_data, capsys):
  """The published text, as it streams: nothing twice, no space lost."""
  record = json.loads(
    (test_data / 'ckpt_stories260K' / 'greedy_200.json').read_text()
  )
  tokenizer, ids = tokenizers.load(folder), record['greedy_ids'][:40]
  # Up to where a prompt is cut into the same ids again.
  num = next(
    n
    for n in range(8, 20)
    if tokenizers.prompt_ids(tokenizer, tokenizer.decode(ids[:n])) == ids[:n]
  )
  run(folder, prompt=tokenizer.decode(ids[:num]), max_new_tokens=40 - num)
  assert capsys.readouterr().out == tokenizer.decode(ids) + '\n'


def test_the_first_text_is_waited_for_with_words(folder, monkeypatch, capsys):
  """Seven seconds of silence while the decoder is compiled."""
  monkeypatch.setattr(progress, '_PATIENCE', 0.0)
  monkeypatch.setattr(progress, '_IN_FILE', 0.01)
  run(folder, prompt='Tom')
  said = capsys.readouterr()
  assert said.out.startswith('Tom') and said.out.count('\n') == 1
  assert 'reading the weights …\n' in said.err
  assert 'compiling, and reading the prompt …\n' in said.err
  run(folder, num_samples=3, max_new_tokens=9, temperature=1.0)
  said = capsys.readouterr()
  assert len([*map(json.loads, said.out.splitlines())]) == 3
  # Its bar is written again while nothing of it is done.
  assert said.err.count(' 0/3 ') > 2


def test_samples_do_not_hang_on_how_many_or_on_the_batch(folder, tmp_path):
  """A seed a batch instead of one a sample."""
  found = []
  for num, size in ((5, 2), (3, 50)):
    path = tmp_path / f'{num}.jsonl'
    run(
      folder,
      num_samples=num,
      max_new_tokens=25,
      batch_size=size,
      temperature=1.0,
      output=str(path),
    )
    found.append([row['text'] for row in lines(path)])
  assert len(set(found[0])) == 5
  assert found[1] == found[0][:3]


def test_one_prompt_is_written_into_a_file(folder, tmp_path, capsys):
  """Catches --output that a --prompt alone leaves without a word."""
  path = tmp_path / 'one.jsonl'
  run(folder, prompt='Tom', max_new_tokens=8, output=str(path))
  (row,) = lines(path)
  assert row['text'].startswith('Tom') and len(row['text']) > 3
  run(folder, prompt='Tom', max_new_tokens=8)
  assert capsys.readouterr().out.strip() == row['text'].strip()
  with pytest.raises(ValueError, match='one.jsonl is there already'):
    run(folder, prompt='Tom', max_new_tokens=8, output=str(path))


def test_a_file_of_prompts_is_answered_and_gone_on_with(folder, tmp_path):
  """Killed and resumed equals never killed; a torn line is written again."""
  source = write(tmp_path / 'in.jsonl', RECORDS)
  whole, torn = tmp_path / 'whole.jsonl', tmp_path / 'torn.jsonl'
  settings = dict(input=source, temperature=1.0, batch_size=4)
  run(folder, output=str(whole), **settings)
  rows = lines(whole)
  assert [row['id'] for row in rows] == [1, 'tom', 3, 4]
  assert rows[1]['kind'] == 'name' and rows[1]['num_tokens'] <= 12
  assert {row['ended'] for row in rows} <= {'eos', 'length'}
  data = whole.read_bytes()
  ends = [m.end() for m in re.finditer(b'\n', data)]
  torn.write_bytes(data[: ends[1] + 25])
  run(folder, output=str(torn), **settings)
  assert torn.read_bytes() == data
  # Finished: nothing is added.
  run(folder, output=str(torn), **settings)
  assert torn.read_bytes() == data
  with pytest.raises(ValueError, match='of another model or of other settings'):
    run(folder, output=str(torn), **settings | dict(temperature=0.5))


def test_an_id_of_null_is_none(folder, tmp_path):
  """One answer to null stood for all, and a resumed file skipped the rest."""
  source = write(
    tmp_path / 'in.jsonl',
    [{'prompt': 'Tom', 'id': None}, {'prompt': 'Sue', 'id': None}] * 2,
  )
  output = tmp_path / 'out.jsonl'
  settings = dict(input=source, output=str(output))
  run(folder, **settings)
  data = output.read_bytes()
  assert [row['id'] for row in lines(output)] == [1, 2, 3, 4]
  output.write_bytes(data[: data.index(b'\n') + 1])
  run(folder, **settings)
  assert output.read_bytes() == data


def test_a_line_separator_ends_no_response(folder, tmp_path):
  """U+2028 in a prompt: its line in the output was cut when gone on with."""
  ask = {'ask': 'a\u2028b\x85c', 'id': 'a\u2028'}
  source = write(tmp_path / 'in.jsonl', [ask])
  output = tmp_path / 'out.jsonl'
  settings = dict(input=source, field='ask', output=str(output))
  run(folder, **settings)
  data = output.read_bytes()
  run(folder, **settings)
  assert output.read_bytes() == data
  (row,) = lines(output)
  assert row == {**row, **ask}


def test_several_responses_to_each_conversation(folder, tmp_path):
  """With a template; a response that a record has already is not seen."""
  source = write(
    tmp_path / 'in.jsonl',
    [
      {'instruction': 'Say hi.', 'input': '', 'output': 'hi'},
      {'messages': [{'role': 'user', 'content': 'Who?'}]},
    ],
  )
  path = tmp_path / 'out.jsonl'
  run(
    folder,
    input=source,
    output=str(path),
    template='belle',
    num_samples=2,
    temperature=1.0,
  )
  rows = lines(path)
  assert [len(row['responses']) for row in rows] == [2, 2]
  assert rows[0]['responses'][0] != rows[0]['responses'][1]


@pytest.mark.parametrize(
  'records, changes, words',
  [
    (
      [{'text': 'a'}],
      {},
      'in.jsonl:1: there is none of the fields prompt, question, messages, '
      r'conversations, conversation, instruction, input \(fields: text\)',
    ),
    (
      [{'prompt': 'a'}],
      dict(field='ask'),
      'there is none of the fields ask, question, messages',
    ),
    ([{'prompt': 3}], {}, r"in.jsonl:1: the field 'prompt' is int, not str"),
    ([[1]], {}, 'in.jsonl:1: list; a line is one JSON object'),
    ([{'prompt': 'a', 'id': [1]}], {}, "the field 'id' is list, not str"),
    (
      [{'prompt': 'a', 'id': 1}, {'prompt': 'b', 'id': 1}],
      {},
      "in.jsonl:2: the id '1' stands in .*in.jsonl:1 already",
    ),
    ([], {}, 'has no prompts'),
    ([{'a': 1}], dict(template='belle'), 'in.jsonl:1: there is none of the'),
    ([{'prompt': 'a ' * 600}], {}, 'prompt 0 has .* tokens'),
    (RECORDS, dict(template='bell'), "template 'bell' is unknown"),
    (RECORDS, dict(template='belle', system='x'), 'no place for a system'),
    (RECORDS, dict(system='x'), 'a system message needs a template'),
    (RECORDS, dict(output=None), '--input needs --output'),
    (RECORDS, dict(prompt='a'), '--input and --prompt do not go together'),
    (RECORDS, dict(mesh_fsdp=99), 'asks for 99 devices'),
    (RECORDS, dict(top_p=2.0), 'top_p=2.0 is out of range'),
  ],
)
def test_what_cannot_be_answered_is_refused(
  folder, tmp_path, records, changes, words
):
  source = write(tmp_path / 'in.jsonl', records)
  output = str(tmp_path / 'out.jsonl')
  with pytest.raises(ValueError, match=words):
    run(folder, **{'input': source, 'output': output, **changes})


def test_what_is_no_json_is_refused(folder, tmp_path):
  """In the input, and in an output that is no output."""
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  source.write_text('{"prompt": "a"}\n{"prom\n')
  with pytest.raises(ValueError, match='in.jsonl:2: invalid JSON'):
    run(folder, input=str(source), output=str(output))
  output.write_text('{"text": "a"}\n')
  source.write_text('{"prompt": "a"}\n')
  with pytest.raises(ValueError, match='out.jsonl:1 is no line of responses'):
    run(folder, input=str(source), output=str(output))


def test_a_conversation_keeps_what_was_said(folder, capsys, monkeypatch):
  """The second question is asked with the first and its answer before it."""
  asked = []
  whole = prompts.Encoder.of_turns

  def of_turns(self, turns):
    asked.append([m.content for m in turns])
    return whole(self, turns)

  monkeypatch.setattr(prompts.Encoder, 'of_turns', of_turns)
  said = iter(['Hi', 'And you?', '/new', 'Bye', ''])
  monkeypatch.setattr(builtins, 'input', lambda _: next(said))
  run(folder, template='belle', max_new_tokens=6)
  first = capsys.readouterr().out.splitlines()[1].strip()
  assert asked == [['Hi'], ['Hi', first, 'And you?'], ['Bye']]


def test_a_full_window_drops_the_oldest_turn_and_not_the_talk(
  folder, capsys, monkeypatch
):
  """A question longer than the room left ended the program, with all said."""
  asked = []
  whole = prompts.Encoder.of_turns

  def of_turns(self, turns):
    asked.append([m.content for m in turns if m.role == 'user'])
    return whole(self, turns)

  monkeypatch.setattr(prompts.Encoder, 'of_turns', of_turns)
  one, two, three = 'Hi ' * 90, 'Tom ' * 150, 'a ' * 600
  said = iter([one, 'And you?', two, three, 'Bye', ''])
  monkeypatch.setattr(builtins, 'input', lambda _: next(said))
  run(folder, template='belle', max_new_tokens=6)
  assert asked == [
    [one],
    [one, 'And you?'],
    [one, 'And you?', two],  # has no room
    ['And you?', two],
    ['And you?', two, three],
    [two, three],
    [three],
    ['And you?', two, 'Bye'],  # as if the third had not been said
  ]
  out = capsys.readouterr().out
  words = r'^the prompt has 6\d\d tokens, and the model 512 positions; shorten'
  assert re.search(words, out, re.MULTILINE)
