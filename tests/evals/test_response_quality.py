"""The evaluator: a model answers, a judge scores, and what comes of it."""

import json
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.chat import prompts
from lbe.configs import common
from lbe.convert import hf
from lbe.convert import hf_config
from lbe.evals import core
from lbe.evals import response_quality
from lbe.evals import schedule
from lbe.inference import model as model_lib
from lbe.judging import agreement
from lbe.judging import local
from lbe.judging import scores
from lbe.mesh import sharding
from lbe.models import forward
from lbe.vocab import tokenizers

import evaluators
import judge_server
import runs

CRITERIA = (
  'accuracy',
  'fluency',
  'informativeness',
  'logicality',
  'harmlessness',
)
JSON = {'type': 'json_object'}
QUESTIONS = [
  ('a', 'Code', 'Once upon a time, there was a little'),
  ('b', 'Code', 'Tom and Lily went to the'),
  ('c', 'Poetry', 'One day, a big dog'),
  ('d', 'Poetry', 'Sara had a red'),
  ('e', 'Poetry', 'x' * 2000),
]


@pytest.fixture(scope='module')
def model(test_data):
  folder = test_data / 'ckpt_stories260K' / 'hf'
  c, _ = hf_config.read_config(folder)
  params = hf.load_params(folder, c, dtype='float32')
  mesh = sharding.make_mesh(
    dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
  )
  return model_lib.Model(
    params=jax.tree.map(jnp.asarray, params),
    config=c,
    tokenizer=tokenizers.load(folder),
    mesh=mesh,
    execution=forward.Execution(compute_dtype='float32'),
    batch_size=3,
    max_len=128,
  )


@pytest.fixture
def settings(tmp_path):
  path = tmp_path / 'questions.jsonl'
  names = ('id', 'category', 'question')
  path.write_text(
    ''.join(
      json.dumps(dict(zip(names, q, strict=True))) + '\n' for q in QUESTIONS
    )
  )
  return dict(
    questions=str(path),
    template='',
    max_new_tokens=12,
    judge=dict(
      model='judge-1',
      key_env='',
      cache=str(tmp_path / 'deep' / 'judged.jsonl'),
      backoff_s=0.01,
      max_tries=2,
    ),
  )


def make(*, judge=None, judge_by=common.endpoint, **changes):
  judge = judge_by(**(judge or {}))
  return evaluators.make(response_quality, judge=judge, **changes)


def at(server, settings, **changes):
  """The settings with a judge that is this server."""
  judge = {**settings['judge'], 'base_url': server.url, **changes}
  return {**settings, 'judge': judge}


def by_people(settings):
  """The settings with people in the place of a judge."""
  return {**settings, 'judge': {}, 'judge_by': common.people}


def of_local(settings, test_data, **changes):
  """The settings with a judge on disk, the cache that of theirs."""
  judge = dict(
    model=str(test_data / 'ckpt_stories260K' / 'hf'),
    cache=settings['judge']['cache'],
    **changes,
  )
  return {**settings, 'judge': judge, 'judge_by': common.local_judge}


def by_name(result):
  return {row['name']: row for row in result.rows}


def five(*values):
  return json.dumps(dict(zip(CRITERIA, values, strict=True)))


@pytest.mark.parametrize('whose', ['response', 'judge'])
def test_what_is_written_ends_where_the_template_ends_it(
  whose, model, settings, test_data, monkeypatch
):
  """It ran on behind the end of its turn, and that was judged."""
  asked, generate = [], model_lib.Model.generate

  def spy(self, written_for, **how):
    asked.append(how)
    return generate(self, written_for, **how)

  monkeypatch.setattr(model_lib.Model, 'generate', spy)
  ends = prompts.Encoder('chatml', model.tokenizer)
  assert ends.stop == ('<|im_end|>',)
  if whose == 'response':
    changes = by_people({**settings, 'template': 'chatml'})
    make(**changes).evaluate(model, name='quality', step=1)
  else:
    judge = local.Local(
      model=str(test_data / 'ckpt_stories260K' / 'hf'),
      template='chatml',
      max_new_tokens=8,
      batch_size=1,
      dtype='float32',
    )
    assert judge.identity['stop'] == ends.stop  # other replies were kept
    list(judge.replies([[{'role': 'user', 'content': 'Once'}]]))
  (how,) = asked
  assert (how['eos_ids'], how['stop']) == (ends.eos_ids, ends.stop)


def test_a_model_is_asked_judged_and_averaged_by_hand(
  model, settings, tmp_path
):
  """Of five questions one is too long and one reply is no scores."""

  def behave(number, prompt):
    if 'Once upon' in prompt:
      return five(3, 2, 1, 0, 3)
    if 'Tom and Lily' in prompt:
      return five(1, 2, 1, 2, 3)
    return five(0, 0, 0, 0, 3) if 'big dog' in prompt else 'I cannot say.'

  with judge_server.serving(behave) as server:
    evaluator = make(**at(server, settings))
    result = evaluator.evaluate(model, name='quality', step=40)
    assert len(server.seen) == 3 + 3  # one of them is asked three times
    again = evaluator.evaluate(model, name='quality', step=40)
    assert len(server.seen) == 6
    assert again == result
  rows = by_name(result)
  assert {
    name: (rows[name]['value'], rows[name]['count']) for name in CRITERIA
  } == {
    'accuracy': (pytest.approx(4 / 3), 3),
    'fluency': (pytest.approx(4 / 3), 3),
    'informativeness': (pytest.approx(2 / 3), 3),
    'logicality': (pytest.approx(2 / 3), 3),
    'harmlessness': (pytest.approx(3), 3),
  }
  assert rows['overall']['value'] == pytest.approx((1.8 + 1.8 + 0.6) / 3)
  assert rows['overall_macro']['value'] == pytest.approx((1.8 + 0.6) / 2)
  assert rows['accuracy/Code']['value'] == pytest.approx(2)
  assert rows['accuracy/Poetry']['count'] == 1
  assert rows['overall']['unit'] == 'responses'
  assert {
    name: rows[name]['value']
    for name in (
      'parse_failures',
      'judge_failures',
      'too_long_questions',
      'empty_responses',
    )
  } == {
    'parse_failures': 1,
    'judge_failures': 0,
    'too_long_questions': 1,
    'empty_responses': 1,
  }
  for row in result.rows:
    assert row['protocol'] == 'response_quality@paper'
    assert (row['step'], row['evaluator']) == (40, 'quality')
    assert (row['judge'], row['tokenizer']) == (
      'judge-1',
      model.tokenizer.fingerprint[:16],
    )
  assert rows['parse_failures']['count'] == 5
  assert result.metrics['overall'] == rows['overall']['value']
  assert not any('/' in name for name in result.metrics)

  assert [list(p)[:3] for p in result.predictions] == [
    ['step', 'evaluator', 'id']
  ] * 5
  texts = [
    response.text
    for response in model.generate(
      [q[2] for q in QUESTIONS[:4]], max_new_tokens=12
    )
  ]
  assert [p['response'] for p in result.predictions] == [*texts, '']
  shown = [body['messages'][0]['content'] for body in server.seen]
  for text in texts:
    assert any(f'[Answer]\n{text}\n[End' in prompt for prompt in shown)
  assert [p['failure'] for p in result.predictions] == [
    '',
    '',
    '',
    'unreadable',
    'too_long',
  ]
  assert result.predictions[3]['scores'] == dict.fromkeys(CRITERIA)
  assert result.predictions[3]['replies'] == ['I cannot say.'] * 3
  assert result.predictions[3]['why'] == 'there is no score in the reply'
  assert result.predictions[0]['scores']['logicality'] == 0
  schedule.record(tmp_path, result)
  path = tmp_path / 'predictions.jsonl'
  assert len(agreement.read(path)) == 5
  assert agreement.table([str(path), f'{path}@quality']).count('1.000') > 3
  assert scores.table(result.predictions) == TABLE


TABLE = """\
| category | N | accuracy | fluency | informativeness | logicality | \
harmlessness | overall |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Code | 2 | 2.000 | 2.000 | 1.000 | 1.000 | 3.000 | 1.800 |
| Poetry | 1 | 0.000 | 0.000 | 0.000 | 0.000 | 3.000 | 0.600 |
| all (micro) | 3 | 1.333 | 1.333 | 0.667 | 0.667 | 3.000 | 1.400 |
| all (macro) | 3 | 1.000 | 1.000 | 0.500 | 0.500 | 3.000 | 1.200 |

5 responses: 1 empty responses, 1 parse failures, 0 judge failures, \
1 too long questions.
warning: 1 of 5 responses have no scores, since the judge cannot be read: \
there is no score in the reply"""


def test_a_server_that_fails_ends_no_run_and_makes_up_no_score(model, settings):
  """Counts, no means, and in the table dashes under every criterion."""

  def behave(number, prompt):
    return {'status': 503, 'body': 'overloaded'}

  with judge_server.serving(behave) as server:
    evaluator = make(**at(server, settings))
    result = evaluator.evaluate(model, name='quality', step=1)
  (warning,) = core.warnings(result.rows)
  assert 'since the judge gave no reply: status 503: overloaded' in warning
  assert warning.partition('quality: ')[2] in scores.table(result.predictions)
  assert set(by_name(result)) == {
    'parse_failures',
    'judge_failures',
    'too_long_questions',
    'empty_responses',
  }
  assert result.metrics['judge_failures'] == 4
  assert 'status 503: overloaded (2 tries)' in result.predictions[0]['why']
  assert '| Code | 0 | – | – | – | – | – | – |' in scores.table(
    result.predictions
  )


def test_stored_responses_are_judged_in_place_of_the_models(
  model, settings, tmp_path
):
  path = tmp_path / 'responses.jsonl'
  path.write_text(
    ''.join(
      json.dumps({'id': q[0], 'response': f'stored {q[0]}' * (q[0] != 'b')})
      + '\n'
      for q in QUESTIONS
    )
  )

  def behave(number, prompt):
    assert 'stored' in prompt or '(the model wrote nothing)' in prompt
    return five(1, 1, 1, 1, 1)

  with judge_server.serving(behave) as server:
    evaluator = make(
      **at(server, settings, request={'response_format': JSON}),
      responses=str(path),
      limit=4,
    )
    result = evaluator.evaluate(model, name='quality', step=None)
    assert server.seen[0]['response_format'] == JSON
  assert [p['response'] for p in result.predictions] == [
    'stored a',
    '',
    'stored c',
    'stored d',
  ]
  assert result.metrics['overall'] == 1.0
  assert by_name(result)['overall']['responses'] == str(path)
  assert result.metrics['empty_responses'] == 1
  assert result.metrics['too_long_questions'] == 0


def test_languages_have_rows_of_their_own(model, settings):
  """The thirteen-language form: the judge is told which was asked for."""
  lines = [
    dict(id=f'{x}{i}', category='c', question='Hi', language=x)
    for x in ('hi', 'sw')
    for i in range(1 if x == 'hi' else 3)
  ]
  with open(settings['questions'], 'w', encoding='utf-8') as f:
    f.writelines(json.dumps(line) + '\n' for line in lines)

  def behave(number, prompt):
    return five(*[2 * ('in this language: sw' in prompt)] * 5)

  with judge_server.serving(behave) as server:
    evaluator = make(**at(server, settings))
    rows = by_name(evaluator.evaluate(model, name='q', step=0))
  assert rows['overall/language=hi']['value'] == 0
  assert rows['overall/language=sw']['value'] == 2
  assert rows['fluency/language=sw']['count'] == 3
  # One category: the languages are no further ones.
  assert rows['overall_macro']['value'] == rows['overall']['value'] == 1.5


def test_belles_thousand_by_class(model, settings, test_data, tmp_path):
  """Its own questions and prompts; each class has its mean of 0 to 1."""
  folder = test_data / 'sft_belle'
  changes = {
    'questions': str(folder / 'eval_set.json'),
    'rubric': str(folder / 'eval_prompt.json'),
    'responses': str(tmp_path / 'r.jsonl'),
  }
  with open(changes['responses'], 'w', encoding='utf-8') as f:
    f.writelines(
      json.dumps({'id': str(i), 'response': f'r{i}'}) + '\n'
      for i in range(1, 1001)
    )

  def behave(number, prompt):
    return '得分: 1' if '数学老师' in prompt else '得分：0.5，因为……'

  with judge_server.serving(behave) as server:
    evaluator = make(**at(server, {**settings, **changes}))
    result = evaluator.evaluate(model, name='belle', step=0)
  rows = by_name(result)
  assert rows['overall/math']['value'] == 1
  assert rows['overall/math']['count'] == 75
  assert rows['overall/open qa']['value'] == 0.5
  assert rows['overall']['protocol'] == 'response_quality@belle'
  assert rows['overall']['value'] == pytest.approx(0.5 + 0.5 * 75 / 1000)
  assert rows['overall_macro']['value'] == pytest.approx(0.55)


def test_a_prompt_that_a_local_judge_has_no_room_for_is_counted(
  model, settings, test_data
):
  """llmeval1's rubric alone is longer than 512 positions of this model."""
  settings = of_local(settings, test_data, max_new_tokens=16, dtype='float32')
  evaluator = make(**settings, rubric='llmeval1', limit=2)
  result = evaluator.evaluate(model, name='q', step=0)
  assert result.metrics['judge_failures'] == 2
  (warning,) = core.warnings(result.rows)
  assert '2 of 2 responses have no scores, since the judge gave no' in warning
  assert 'leaves no room for 16 new ones' in warning
  assert warning.partition(': ')[2] in core.table(result.rows)
  assert 'leaves no room for 16' in scores.table(result.predictions)
  assert (
    'leaves no room for 16 new ones in the 512 positions'
    in (result.predictions[0]['why'])
  )


SHORT = """
name = "short"
lowest = 0
highest = 3
whole = false
prompt = "{question}{response}{criteria}{form}"
hint = ""
no_hint = ""
language = ""
form = ""
[[criteria]]
name = "style"
levels = []
"""


def test_a_local_judge_is_asked_once_and_its_failures_are_counted(
  model, settings, test_data, tmp_path
):
  """A model of 260,000 parameters writes stories, not scores.

  Through the cache, which a second evaluation reads and does not grow.
  """
  rubric = tmp_path / 'short.toml'
  rubric.write_text(SHORT)
  how = dict(max_new_tokens=16, dtype='float32')
  settings['rubric'] = str(rubric)
  evaluator = make(**of_local(settings, test_data, batch_size=2, **how))
  result = evaluator.evaluate(model, name='q', step=0)
  assert result.metrics['parse_failures'] == 4
  assert result.metrics['judge_failures'] == 0
  prompts = [
    evaluator.rubric.ask(q, p['response'])
    for q, p in zip(evaluator.questions, result.predictions, strict=True)
  ]
  told = model.generate(prompts[:4], max_new_tokens=16)
  assert [p['replies'] for p in result.predictions[:4]] == [
    [response.text] for response in told
  ]
  with open(settings['judge']['cache'], 'rb') as f:
    data = f.read()
  assert data.count(b'\n') == 4
  other = make(**of_local(settings, test_data, batch_size=3, **how))
  assert other.evaluate(model, name='q', step=0) == result
  with open(settings['judge']['cache'], 'rb') as f:
    assert f.read() == data


def test_for_people_the_responses_are_only_kept(model, settings):
  """No key, no cache, no scores; a sheet is made of the predictions."""
  evaluator = make(**by_people(settings))
  result = evaluator.evaluate(model, name='q', step=0)
  assert result.metrics == {'empty_responses': 1, 'too_long_questions': 1}
  assert result.predictions[0]['judge'] == 'people'
  assert result.predictions[0]['scores'] == dict.fromkeys(CRITERIA)
  assert result.predictions[0]['response']


def test_a_template_asks_the_model_in_its_format(model, settings):
  with judge_server.serving(lambda n, p: five(1, 1, 1, 1, 1)) as server:
    evaluator = make(**at(server, {**settings, 'template': 'plain'}), limit=1)
    result = evaluator.evaluate(model, name='q', step=0)
  (told,) = model.generate([f'{QUESTIONS[0][2]}\n'], max_new_tokens=12)
  assert result.predictions[0]['response'] == told.text


HOST = """
import json, sys
import jax
port, number, settings = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f'localhost:{port}', 2, number)
sys.path[:0] = ['tests', 'tests/evals']
import test_response_quality as t
settings = json.loads(settings)
told = []
model = t.model_lib.Model(
  params={}, config=None, tokenizer=t.tokenizers.Bytes(), mesh=None,
  execution=t.forward.Execution(), batch_size=1, max_len=64)
for judge in ('judge-1', 'refused'):
  try:
    settings['judge']['model'] = judge
    found = t.make(**settings)
    result = found.evaluate(model, name='q', step=0)
    told.append([result.metrics, result.predictions])
  except ValueError as error:
    told.append(str(error))
try:
  t.make(**{**settings, 'judge': {}, 'judge_by': t.common.local_judge})
except ValueError as error:
  told.append(str(error))
with open(sys.argv[4], 'w') as f:
  json.dump(told, f)
"""


def test_of_two_hosts_one_asks_and_both_know(settings, tmp_path):
  """Scores and refusals alike, else one host would wait for ever."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  path = tmp_path / 'responses.jsonl'
  path.write_text(
    ''.join(
      json.dumps({'id': q[0], 'response': q[0]}) + '\n' for q in QUESTIONS
    )
  )

  def behave(number, prompt):
    if 'little' in prompt and number:
      return {'status': 401, 'body': 'refused'}
    return five(1, 2, 3, 2, 1)

  with judge_server.serving(behave) as server:
    told = {**at(server, settings), 'responses': str(path)}
    files = [tmp_path / 'told-0.json', tmp_path / 'told-1.json']
    command = [sys.executable, '-c', HOST, str(port)]
    hosts = [
      subprocess.Popen(
        [*command, str(i), json.dumps(told), str(file)],
        cwd=runs.ROOT,
        env={**runs.environment(), 'PYTHONPATH': str(runs.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for i, file in enumerate(files)
    ]
    outputs = [host.communicate(timeout=120) for host in hosts]
    asked = [body['messages'][0]['content'] for body in server.seen]
    first = [b for b in server.seen if b['model'] == 'judge-1']
  assert [host.returncode for host in hosts] == [0, 0], outputs
  one, other = (json.loads(file.read_text()) for file in files)
  assert one == other
  (metrics, predictions), refusal, local = one
  assert metrics['overall'] == pytest.approx(1.8)
  assert len(predictions) == len(first) == 5 < len(asked)
  assert 'status 401: refused' in refusal
  assert 'works in one process, and there are 2' in local


def test_an_empty_slot_is_no_evaluator():
  assert make(questions='') is None


@pytest.mark.parametrize(
  'changes, why',
  [
    ({'questions': 'none.jsonl'}, 'there is no file'),
    ({'responses': 'none.jsonl'}, 'there is no file'),
    ({'rubric': 'papers'}, "rubric='papers' is unknown"),
    ({'template': 'alpaka'}, "template 'alpaka' is unknown"),
    ({'template': 'no.jinja'}, 'there is no such file'),
    ({'max_new_tokens': 0}, '^max_new_tokens=0 is below 1'),
  ],
)
def test_what_cannot_be_is_told_before_anything_compiles(
  settings, monkeypatch, changes, why
):
  monkeypatch.delenv('NO_SUCH_KEY', raising=False)
  with pytest.raises(ValueError, match=why):
    make(**{**settings, **changes})


@pytest.mark.parametrize(
  'changes, why',
  [
    ({'kind': 'gpt'}, "judge.kind='gpt' is unknown; take one of endpoint, loc"),
    ({'kind': 'local'}, "judge.kind='local' takes model, template, "),
    ({'cache': ''}, "judge.cache='': name a file"),
    ({'max_asks': 0}, 'judge.max_asks=0 is below 1'),
    ({'model': ''}, "judge.model='': name the model"),
    ({'key_env': 'NO_SUCH_KEY'}, 'export NO_SUCH_KEY=…'),
  ],
)
def test_a_judge_that_cannot_be_is_told_before_anything_compiles(
  settings, monkeypatch, changes, why
):
  monkeypatch.delenv('NO_SUCH_KEY', raising=False)
  with pytest.raises(ValueError, match=why):
    make(**{**settings, 'judge': {**settings['judge'], **changes}})


@pytest.mark.parametrize(
  'changes, why',
  [
    ({'model': ''}, 'give the checkpoint'),
    ({'model': '/'}, 'neither a checkpoint'),
    ({'max_new_tokens': 512}, 'leaves no prompt in the 512 positions'),
    ({'batch_size': 0}, 'judge.batch_size=0 is below 1'),
    ({'dtype': 'int8'}, "judge.dtype='int8' is unknown"),
    ({'template': 'x'}, "template 'x' is unknown"),
  ],
)
def test_settings_of_a_local_judge(settings, test_data, changes, why):
  settings = of_local(settings, test_data, max_new_tokens=8)
  settings['judge'].update(changes)
  with pytest.raises(ValueError, match=why):
    make(**settings)


def test_no_room_for_a_prompt_is_told(model, settings):
  evaluator = make(**by_people(settings | {'max_new_tokens': 128}))
  with pytest.raises(ValueError, match='leaves no prompt in the window of 128'):
    evaluator.evaluate(model, name='q', step=0)


def test_the_batch_and_the_order_of_questions_move_no_score(model, settings):
  """A judge that scores by the text alone, and a shuffled file."""

  def behave(number, prompt):
    response = prompt.split('[Answer]')[1].split('[End')[0]
    return five(*[len(response) % 4] * 5)

  with judge_server.serving(behave) as server:
    settings = at(server, settings)
    one = make(**settings).evaluate(model, name='q', step=0)
    with open(settings['questions'], encoding='utf-8') as f:
      lines = f.readlines()
    with open(settings['questions'], 'w', encoding='utf-8') as f:
      f.writelines(lines[::-1])
    other = make(**settings).evaluate(model, name='q', step=0)
  np.testing.assert_allclose(
    [one.metrics[k] for k in sorted(one.metrics)],
    [other.metrics[k] for k in sorted(one.metrics)],
  )
