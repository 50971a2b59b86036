"""lbe.generate and its prompts: what a user types, and what comes out."""

import builtins
import json
import re

import pytest
from absl import flags
from absl.testing import flagsaver

from lbe import generate
from lbe.chat import messages
from lbe.chat import prompting
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
  return [json.loads(x) for x in path.read_text('utf-8').splitlines()]


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
    ([{'text': 'a'}], {}, r"in.jsonl:1: the field 'prompt' is missing"),
    ([{'prompt': 3}], {}, r"in.jsonl:1: the field 'prompt' is missing or no"),
    ([[1]], {}, 'a record is a JSON object'),
    ([{'prompt': 'a', 'id': [1]}], {}, 'is no text and no number'),
    (
      [{'prompt': 'a', 'id': 1}, {'prompt': 'b', 'id': 1}],
      {},
      'the id 1 stands in line 1, too',
    ),
    ([], {}, 'has no records'),
    ([{'a': 1}], dict(template='belle'), 'are of no known form'),
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
  with pytest.raises(ValueError, match='in.jsonl:2: the line is no JSON'):
    run(folder, input=str(source), output=str(output))
  output.write_text('{"text": "a"}\n')
  source.write_text('{"prompt": "a"}\n')
  with pytest.raises(ValueError, match='out.jsonl:1 is no line of responses'):
    run(folder, input=str(source), output=str(output))


def test_a_conversation_keeps_what_was_said(folder, capsys, monkeypatch):
  """The second question is asked with the first and its answer before it."""
  asked = []
  whole = prompting.Prompts.of_turns

  def of_turns(self, turns):
    asked.append([m.content for m in turns])
    return whole(self, turns)

  monkeypatch.setattr(prompting.Prompts, 'of_turns', of_turns)
  said = iter(['Hi', 'And you?', '/new', 'Bye', ''])
  monkeypatch.setattr(builtins, 'input', lambda _: next(said))
  run(folder, template='belle', max_new_tokens=6)
  first = capsys.readouterr().out.splitlines()[1].strip()
  assert asked == [['Hi'], ['Hi', first, 'And you?'], ['Bye']]


# ----------------------------------------------------------------- prompting


@pytest.fixture(scope='module')
def llama_tokenizer(test_data):
  return tokenizers.load(test_data / 'tok_llama_32000')


@pytest.mark.parametrize(
  'template, stop',
  [
    ('belle', ()),
    ('alpaca', ()),
    ('llama2_chat', ()),
    ('plain', ()),
    ('chatml', ('<|im_end|>',)),
    ('llama3_chat', ('<|eot_id|>',)),
  ],
)
def test_a_response_ends_where_its_template_says(
  llama_tokenizer, template, stop
):
  """LLaMA's tokenizer has no such tokens, so they end it as texts."""
  found = prompting.Prompts(template, llama_tokenizer)
  assert (found.eos_ids, found.stop) == ((2,), stop)


def test_an_end_of_turn_token_ends_a_response(tmp_path):
  """A special token of the tokenizer, by name and in a chat_template."""
  from tokenizers import models
  from tokenizers import Tokenizer

  pieces = ['<unk>', '<s>', '</s>', 'a', 'b', '<|im_start|>', '<|im_end|>']
  made = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}))
  made.add_special_tokens(['<s>', '</s>', '<|im_start|>', '<|im_end|>'])
  tokenizer = tokenizers.HuggingFace(made.to_str())
  path = tmp_path / 'chat_template.jinja'
  path.write_text(
    '{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}'
  )
  for template in ('chatml', str(path)):
    found = prompting.Prompts(template, tokenizer)
    assert (found.eos_ids, found.stop) == ((2, 6), ())


def test_records_of_all_forms_are_the_same_question(llama_tokenizer):
  """With a response or without one."""
  found = prompting.Prompts('llama2_chat', llama_tokenizer, system='Be kind.')
  wanted = found.of_text('Why?')
  assert wanted == found.of_turns([messages.Message('user', 'Why?')])
  user = {'role': 'user', 'content': 'Why?'}
  for record in (
    {'prompt': 'Why?'},
    {'instruction': 'Why?'},
    {'instruction': 'Why?', 'output': 'So.'},
    {'input': 'Why?', 'target': ''},
    {'messages': [user]},
    {'messages': [user, {'role': 'assistant', 'content': 'So.'}]},
    {'conversations': [{'from': 'human', 'value': 'Why?'}]},
  ):
    ids = found.of_record(record, field='prompt', where='here')
    assert ids == wanted, record
  own = {'role': 'system', 'content': 'Be short.'}
  other = found.of_record(
    {'messages': [own, user]}, field='prompt', where='here'
  )
  assert 'Be short.' in llama_tokenizer.decode(other)
  assert 'Be kind.' not in llama_tokenizer.decode(other)
