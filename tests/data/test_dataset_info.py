"""LLaMA-Factory's registry: its entries give what messages.py reads."""

import json

import pytest

from lbe.chat import messages
from lbe.data import dataset_info
from lbe.data import sources

REGISTRY = {
  'alpaca': {'file_name': 'alpaca.json'},
  'belle': {
    'file_name': 'belle.jsonl',
    'columns': {'prompt': 'q', 'response': 'a', 'history': 'before'},
    'num_samples': 5,
  },
  'pretrain': {'file_name': 'belle.jsonl', 'columns': {'prompt': 'q'}},
  'chat': {
    'file_name': 'chat.jsonl',
    'formatting': 'sharegpt',
    'columns': {'messages': 'talk', 'system': 'sys'},
    'tags': {
      'role_tag': 'role',
      'content_tag': 'content',
      'user_tag': 'USER',
      'assistant_tag': 'BOT',
    },
  },
}
FILES = {
  'alpaca.json': [{'instruction': 'i', 'input': 'x', 'output': 'o', 'id': 1}],
  'belle.jsonl': [
    {'q': '问', 'a': '答', 'before': [['p', 'r']], 'input': 'not read'},
  ],
  'chat.jsonl': [
    {
      'talk': [
        {'role': 'USER', 'content': 'hi'},
        {'role': 'BOT', 'content': 'yo', 'weight': 0},
      ],
      'sys': 'be kind',
    },
    {
      'talk': [
        {'role': 'system', 'content': 'be brief'},
        {'role': 'USER', 'content': 'hi'},
        {'role': 'BOT', 'content': 'yo'},
      ],
      'sys': 'be kind',
    },
  ],
}


def source(tmp_path, name, registry=REGISTRY, template='plain', **fields):
  path = tmp_path / 'dataset_info.json'
  path.write_text(json.dumps(registry))
  for file, records in FILES.items():
    lines = [json.dumps(record) for record in records]
    whole = (
      f'[{",".join(lines)}]' if file == 'alpaca.json' else '\n'.join(lines)
    )
    (tmp_path / file).write_text(whole)
  path = f'dataset_info:{path}@{name}'
  return sources.make('zh', path=path, template=template, **fields)


def read(*arguments, **fields):
  return [r for r, _ in sources.records(source(*arguments, **fields))]


def test_alpaca_entries_read_the_columns_they_name(tmp_path):
  """Where columns are given, others are not read, even under our names."""
  assert read(tmp_path, 'alpaca') == [
    {'instruction': 'i', 'input': 'x', 'output': 'o'}
  ]
  assert read(tmp_path, 'belle') == [
    {'instruction': '问', 'output': '答', 'history': [['p', 'r']]}
  ]


def test_sharegpt_entries_come_out_as_our_roles(tmp_path):
  """A foreign role would be refused; a system turn stands above the column."""
  first, second = (
    messages.conversation(record, where='') for record in read(tmp_path, 'chat')
  )
  assert first == [
    messages.Message('system', 'be kind'),
    messages.Message('user', 'hi'),
    messages.Message('assistant', 'yo', trained=False),
  ]
  assert [m.content for m in second] == ['be brief', 'hi', 'yo']


def test_turns_of_a_table_are_read_from_their_json(tmp_path):
  """CSV and Parquet have them as one text."""
  found = source(tmp_path, 'chat')
  talk = FILES['chat.jsonl'][0]['talk']
  for written in (talk, json.dumps(talk)):
    made = dataset_info.record(found.entry, {'talk': written})
    assert [m.content for m in messages.conversation(made, where='')] == [
      'hi',
      'yo',
    ]


def test_without_a_template_the_prompt_is_the_text(tmp_path):
  """LLaMA-Factory's pretraining reads the column of the prompt alone."""
  found = source(tmp_path, 'pretrain', template='')
  assert [text for text, _ in sources.documents(found)] == ['问']
  with pytest.raises(ValueError, match='holds conversations; set template='):
    source(tmp_path, 'chat', template='')


def test_num_samples_is_a_subset_unless_the_config_has_its_own(tmp_path):
  """The seeded order makes a random sample of it."""
  assert source(tmp_path, 'belle').max_documents == 5
  assert source(tmp_path, 'belle', max_documents=3).max_documents == 3
  assert source(tmp_path, 'alpaca').max_documents is None


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'ranking': True}, 'has ranking=True, which is not read here'),
    ({'hf_hub_url': 'a/b'}, "has hf_hub_url='a/b', which is not read"),
    ({'columns': {'images': 'i'}}, "has columns.images='i', which is not"),
    ({'columns': {'messages': 'm'}}, "columns.messages='m'.*of alpaca prompt"),
    ({'tags': {'role_tag': 'r'}}, "has tags.role_tag='r', which is not"),
    ({'formatting': 'xml'}, "formatting='xml'; alpaca and sharegpt are read"),
    ({'split': 'test'}, "split='test'; a file is one split"),
    ({'file_name': None}, 'has no file_name'),
  ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path, changes, words):
  """Preference data trained on as plain text would go unnoticed."""
  registry = {'x': {'file_name': 'alpaca.json', **changes}}
  with pytest.raises(ValueError, match=f"the entry 'x' .*{words}"):
    source(tmp_path, 'x', registry)


def test_entries_and_fields_that_are_not_there_are_named(tmp_path):
  """With the ones that are."""
  with pytest.raises(ValueError, match="no entry 'bell'; take one of alp"):
    source(tmp_path, 'bell')
  registry = {'x': {'file_name': 'alpaca.json', 'columns': {'prompt': 'ask'}}}
  with pytest.raises(ValueError, match="record 1: no field 'ask', which the"):
    read(tmp_path, 'x', registry)
  (tmp_path / 'broken.json').write_text('{\n"a": ]')
  with pytest.raises(ValueError, match=r'broken\.json, line 2: invalid JSON'):
    sources.make('zh', path=f'dataset_info:{tmp_path}/broken.json@a')
