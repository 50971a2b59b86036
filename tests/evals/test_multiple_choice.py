"""Accuracies: the scored tokens, the averages, and the harness beside us."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from lbe.evals import lm_eval as adapter
from lbe.evals import multiple_choice
from lbe.inference import score
from lbe.vocab import tokenizers

import evaluators
import exam_files
import harness
import runs

# What `lm_eval` has by default.
HARNESS = dict(cut='harness', max_new_tokens=256)


@pytest.fixture(scope='module')
def llama_tokenizer(test_data):
  return tokenizers.load(test_data / 'tok_llama_32000')


@pytest.fixture(scope='module')
def folder(llama_tokenizer, tmp_path_factory):
  """A random model with the real 32,000 pieces and 4,096 positions."""
  target = tmp_path_factory.mktemp('model') / 'hf'
  return harness.write_model(target, llama_tokenizer, dim=64, mlp_dim=96)


@pytest.fixture(scope='module')
def model(folder):
  return harness.load_ours(folder)


@pytest.mark.parametrize('bos', [True, False])
def test_scores_are_those_of_the_harness(
  test_data, folder, model, tmp_path, bos
):
  """Its own task files on transformers: requests, answers and metrics."""
  tasks = [
    harness.ceval_task(tmp_path, test_data, 'physician', limit=5),
    harness.mmlu_task(tmp_path, test_data, 'anatomy', limit=5),
  ]
  theirs = harness.load_theirs(folder, folder, bos=bos, batch_size=5)
  expected, _ = harness.run(theirs, tmp_path, tasks, num_fewshot=5)
  ours, _ = harness.run(
    adapter.adapt(model, bos=bos, **HARNESS), tmp_path, tasks, num_fewshot=5
  )
  found = harness.compare(ours, expected)
  assert found['requests'] == 40
  assert found['largest_logprob_difference'] < 1e-4
  assert found['greedy_differ'] == 0
  assert set(found['metric_differences'].values()) == {0.0}
  for exam, subject in (('ceval', 'physician'), ('mmlu', 'anatomy')):
    own = harness.own_equals(
      model, test_data, exam, [subject], expected, limit=5, bos=bos
    )
    assert own['answers_differ'] == 0
    assert own['largest_logprob_difference'] < 1e-4


def test_truncation_rolling_and_empty_contexts_are_those_of_the_harness(
  test_data, tmp_path
):
  """512 positions are too few for five shots; the harness cuts as well."""
  from lm_eval.api.instance import Instance

  folder = test_data / 'ckpt_stories260K' / 'hf'
  ours = harness.load_ours(folder)
  target = tmp_path / 'tokenizer'
  target.mkdir()
  harness.vocab_export.write(ours.tokenizer, target, max_positions=512)
  long = 'Once upon a time there was a dog. ' * 80
  pairs = [
    ('', 'Once upon'),
    (long, ' and more'),
    ('A ', 'dog'),
    ('x', long[:900]),
  ]
  for bos in (True, False):
    theirs = harness.load_theirs(folder, target, bos=bos)

    def ask(model, kind, arguments):
      requests = [
        Instance(request_type=kind, doc={}, arguments=a, idx=0)
        for a in arguments
      ]
      return np.array(getattr(model, kind)(requests, disable_tqdm=True))

    adapted = adapter.adapt(ours, bos=bos, **HARNESS)
    for kind, arguments in (
      ('loglikelihood', pairs),
      ('loglikelihood_rolling', [(long,), ('One.',)]),
    ):
      a, b = ask(theirs, kind, arguments), ask(adapted, kind, arguments)
      np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-4)


def test_generation_is_that_of_the_harness(test_data, tmp_path):
  """Greedy text up to a stop string, by the same requests."""
  from lm_eval.api.instance import Instance

  folder = test_data / 'ckpt_stories260K' / 'hf'
  ours = harness.load_ours(folder)
  target = tmp_path / 'tokenizer'
  target.mkdir()
  harness.vocab_export.write(ours.tokenizer, target, max_positions=512)
  settings = {'until': ['.', '\n'], 'max_gen_toks': 40}
  requests = [
    Instance('generate_until', {}, (text, settings), 0)
    for text in ('Once upon a time', 'Tim and Lily went to')
  ]
  theirs = harness.load_theirs(folder, target, bos=True)
  adapted = adapter.adapt(ours, bos=True, **HARNESS)
  assert adapted.generate_until(requests) == theirs.generate_until(requests)


def test_letters_are_scored_by_their_own_token(
  llama_tokenizer, model, tmp_path
):
  """▁A behind a colon, where the joint encoding would give A."""
  exam_files.write_ceval(tmp_path)
  exam = evaluators.make(
    multiple_choice,
    path=tmp_path,
    protocol='ceval@official',
    subjects=('law',),
    num_shots=2,
  )
  tokens = multiple_choice.letter_tokens(
    llama_tokenizer, 'ceval@official', ('A', 'B', 'C', 'D')
  )
  assert [llama_tokenizer.piece(t) for (t,) in tokens] == [
    '▁A',
    '▁B',
    '▁C',
    '▁D',
  ]
  result = exam.evaluate(model, name='zh', step=3)
  first = exam.items[0]
  ids = [llama_tokenizer.bos_id, *llama_tokenizer.encode(first.context)]
  expected = model.score(
    [score.continuation(ids, t, max_len=4096)[0] for t in tokens]
  )
  np.testing.assert_allclose(
    result.predictions[0]['scores'], [s.logprob for s in expected], atol=1e-4
  )


def test_cla_sums_the_logits_of_both_letters(llama_tokenizer, model, tmp_path):
  """Logits, not log-probabilities; the penalty where the prompt has a token."""
  import torch
  import transformers

  exam_files.write_ceval(tmp_path)
  exam = evaluators.make(
    multiple_choice,
    path=tmp_path,
    protocol='ceval@cla',
    subjects=('law',),
    num_shots=0,
  )
  tokens = multiple_choice.letter_tokens(
    llama_tokenizer, 'ceval@cla', ('A', 'B', 'C', 'D')
  )
  assert [llama_tokenizer.piece(t) for t in tokens[0]] == ['▁A', 'A']
  result = exam.evaluate(model, name='zh', step=None)
  processor = transformers.RepetitionPenaltyLogitsProcessor(1.1)
  for item, found in zip(exam.items, result.predictions, strict=True):
    ids = [llama_tokenizer.bos_id, *llama_tokenizer.encode(item.context)]
    # The whole row of logits, token by token, from our own scorer.
    whole = model.score(
      [score.continuation(ids, [t], max_len=4096)[0] for t in sum(tokens, ())]
    )
    row = torch.full((1, llama_tokenizer.vocab_size), -100.0)
    for t, s in zip(sum(tokens, ()), whole, strict=True):
      row[0, t] = s.logprob + s.normalizer
    row = processor(torch.tensor([ids]), row)[0]
    expected = [float(row[a] + row[b]) for a, b in tokens]
    np.testing.assert_allclose(found['scores'], expected, atol=1e-3)


def test_averages_by_hand(model, tmp_path):
  """Macro: subjects weigh the same. Micro: questions do. Both are told."""
  exam_files.write_mmlu(tmp_path, 'anatomy')
  exam_files.write_mmlu(tmp_path, 'virology')
  path = tmp_path / 'test' / 'virology_test.csv'
  path.write_text('Which?,a,b,c,d,A\n')
  exam = evaluators.make(
    multiple_choice,
    path=tmp_path,
    protocol='mmlu@hendrycks',
    subjects=('anatomy', 'virology'),
    num_shots=1,
  )
  result = exam.evaluate(model, name='en', step=7)
  right = {p['id']: p['acc'] for p in result.predictions}
  anatomy = [right[f'anatomy/{i}'] for i in range(3)]
  virology = right['virology/0']
  rows = {r['name']: r for r in result.rows}
  assert rows['acc']['average'] == 'micro'
  assert rows['acc']['value'] == (sum(anatomy) + virology) / 4
  assert rows['acc_macro']['value'] == pytest.approx(
    (sum(anatomy) / 3 + virology) / 2
  )
  assert rows['acc/other']['count'] == 4
  assert rows['acc/anatomy']['value'] == sum(anatomy) / 3
  assert 'acc_norm' not in rows  # letters are equally long
  assert rows['acc']['protocol'] == 'mmlu@hendrycks'
  assert rows['acc']['step'] == 7 and rows['acc']['num_cut'] == 0
  assert rows['acc']['unit'] == 'questions' and 'interval95' not in rows['acc']


def test_acc_norm_divides_by_characters(model, tmp_path):
  path = tmp_path / 'own.jsonl'
  path.write_text(
    '{"question": "Say", "answer": 1, "choices": ["a", "a long choice '
    'of many words and more words"]}\n'
  )
  exam = evaluators.make(multiple_choice, path=path, protocol='choices@texts')
  (found,) = exam.evaluate(model, name='own', step=0).predictions
  assert found['chosen'] == 0  # one token is likelier than many
  lengths = [len('a'), len('a long choice of many words and more words')]
  expected = np.argmax(np.divide(found['scores'], lengths))
  assert found['chosen_norm'] == expected == 1


def test_demonstrations_are_dropped_where_the_prompt_is_too_long(
  model, tmp_path
):
  """As evaluate.py of hendrycks does; the harness cuts from the left."""
  import dataclasses

  exam_files.write_mmlu(tmp_path, 'anatomy')
  short = dataclasses.replace(model, max_len=100)
  for protocol, cut in (('mmlu@hendrycks', False), ('mmlu@lmeval', True)):
    exam = evaluators.make(
      multiple_choice, path=tmp_path, protocol=protocol, subjects=('anatomy',)
    )
    result = exam.evaluate(short, name='en', step=0)
    tokens = [p['cut_tokens'] for p in result.predictions]
    assert (min(tokens) > 0) == cut
    assert result.rows[0]['num_cut'] == (3 if cut else 0)


def test_scores_on_eight_devices_are_those_on_one(folder, model, tmp_path):
  import dataclasses

  from lbe.mesh import sharding
  from lbe.models import weights

  exam_files.write_ceval(tmp_path)
  exam = evaluators.make(
    multiple_choice,
    path=tmp_path,
    protocol='ceval@lmeval',
    subjects=('law',),
    num_shots=5,
  )
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  many = dataclasses.replace(
    model,
    mesh=mesh,
    params=jax.device_put(
      model.params, sharding.shardings(mesh, weights.dims(model.config))
    ),
  )
  one = exam.evaluate(model, name='zh', step=0)
  eight = exam.evaluate(many, name='zh', step=0)
  for a, b in zip(one.predictions, eight.predictions, strict=True):
    assert a['chosen'] == b['chosen']
    np.testing.assert_allclose(a['scores'], b['scores'], atol=1e-4)
  assert one.metrics == eight.metrics


def test_what_cannot_be_asked_is_refused(test_data, tmp_path):
  with pytest.raises(ValueError, match="'mmlu' is unknown; take one of mmlu@"):
    evaluators.make(multiple_choice, path='x', protocol='mmlu')
  with pytest.raises(ValueError, match='is no folder; give the one with dev/'):
    evaluators.make(multiple_choice, path='x', protocol='mmlu@lmeval')
  assert (
    evaluators.make(multiple_choice, path='', protocol='mmlu@lmeval') is None
  )
  with pytest.raises(ValueError, match='num_shots=5: the protocol of XCOPA'):
    evaluators.make(
      multiple_choice, path='x', protocol='xcopa@lmeval', num_shots=5
    )
  # Letters that are the same byte pieces, or several.
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')
  with pytest.raises(ValueError, match='not distinct single tokens .A: .*take'):
    multiple_choice.letter_tokens(tokenizer, 'ceval@official', ('A', 'AZQ'))


def test_unknown_tasks_of_the_harness_are_refused():
  with pytest.raises(ValueError, match="no task 'mmlu_magic'; similar: "):
    evaluators.make(adapter, tasks=('mmlu_magic',))
  assert evaluators.make(adapter, tasks=()) is None


def test_a_task_of_the_harness_is_an_evaluator(test_data, model, tmp_path):
  """Rows, metrics and predictions, as of our own evaluators."""
  task = harness.ceval_task(tmp_path, test_data, 'physician')
  made = evaluators.make(
    adapter, tasks=(task,), include_path=str(tmp_path), num_fewshot=0, limit=3
  )
  assert made._manager.all_tasks == [task], 'else thousands are looked up'
  result = made.evaluate(model, name='extra', step=5)
  rows = {r['name']: r for r in result.rows}
  assert rows[f'{task}/acc']['count'] == 3
  assert rows[f'{task}/acc']['protocol'] == f'{task}@lm_eval'
  assert result.metrics[f'{task}/acc'] == rows[f'{task}/acc']['value']
  assert len(result.predictions) == 3


def test_a_group_of_the_harness_has_the_questions_of_its_tasks(model, tmp_path):
  """Catches N 0 beside the score of a group, and of a group of groups."""
  for name, num in (('a', 2), ('b', 3)):
    asked = {'q': 'Which?', 'choices': ['red', 'blue'], 'gold': 0}
    data = tmp_path / f'{name}.jsonl'
    data.write_text('\n'.join([json.dumps(asked)] * num))
    task = {
      'task': f'own_{name}',
      'dataset_path': 'json',
      'dataset_kwargs': {'data_files': str(data)},
      'test_split': 'train',
      'output_type': 'multiple_choice',
      'doc_to_text': '{{q}}:',
      'doc_to_choice': 'choices',
      'doc_to_target': 'gold',
      'metric_list': [
        {'metric': 'acc', 'aggregation': 'mean', 'higher_is_better': True}
      ],
    }
    (tmp_path / f'{name}.yaml').write_text(json.dumps(task))
  weighted = [{'metric': 'acc', 'weight_by_size': True}]
  for name, tasks in (('inner', ['own_b']), ('outer', ['own_a', 'inner'])):
    group = {'group': name, 'task': tasks, 'aggregate_metric_list': weighted}
    (tmp_path / f'{name}.yaml').write_text(json.dumps(group))
  made = evaluators.make(adapter, tasks=('outer',), include_path=str(tmp_path))
  rows = made.evaluate(model, name='extra', step=5).rows
  assert {r['name']: r['count'] for r in rows} == {
    'own_a/acc': 2,
    'own_b/acc': 3,
    'inner/acc': 3,
    'outer/acc': 5,
  }
  hashes = {r['name']: r['data_hash'] for r in rows}
  assert hashes['inner/acc'] == hashes['own_b/acc'] != hashes['outer/acc']
  # The questions of a task are alike here, and so are their answers.
  assert {r.get('most_chosen_share') for r in rows} == {1.0, None}


def test_an_exam_of_ones_own_with_an_empty_choice(model, tmp_path):
  """What has no characters is never the likeliest by character."""
  path = tmp_path / 'own.csv'
  path.write_text('question,A,B,C,answer\n' + 'Which?,,dog,0,B\n' * 6)
  for protocol in ('letters', 'texts', 'continuation'):
    exam = evaluators.make(
      multiple_choice, path=path, protocol=f'choices@{protocol}'
    )
    result = exam.evaluate(model, name='own', step=0)
    assert len(result.predictions[0]['scores']) == 3
    assert result.predictions[0]['gold'] == [1]
    if protocol != 'letters':
      assert result.predictions[0]['chosen_norm'] != 0
    facts = result.rows[0]
    assert facts['most_chosen_share'] == 1.0
    wrong = facts['most_chosen'] not in ('B', 'dog')  # a letter, or its text
    assert ('warning' in facts) == wrong


def test_shots_are_the_harness_own_where_none_are_told(tmp_path):
  """The harness asks CMMLU without demonstrations, if not told otherwise."""
  protocol = multiple_choice.PROTOCOLS['cmmlu@lmeval']
  assert protocol.num_shots == 0
  with pytest.raises(ValueError, match='num_shots=-1 is below 0'):
    evaluators.make(
      multiple_choice, path='x', protocol='cmmlu@lmeval', num_shots=-1
    )


TASK = """
from lbe.configs import common


def get_config():
  config = common.base()
  config.execution.compute_dtype = 'float32'
  config.evals.extra = common.lm_eval(
    tasks=({task!r},), include_path={folder!r}, num_fewshot=0, limit=2
  )
  return config
"""
# As if they were not installed.
WITHOUT_TORCH = """
import importlib.machinery
import runpy
import sys


class Finder(importlib.machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name.partition('.')[0] not in ('torch', 'transformers'):
      return super().find_spec(name, path, target)


at = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[at] = Finder
runpy.run_module('lbe.evaluate', run_name='__main__', alter_sys=True)
"""


def test_the_harness_needs_no_torch(test_data, tmp_path):
  """The program, as a person starts it, where torch cannot be imported."""
  task = harness.ceval_task(tmp_path, test_data, 'physician')
  config = tmp_path / 'config.py'
  config.write_text(TASK.format(task=task, folder=str(tmp_path)))
  found = subprocess.run(
    [
      sys.executable,
      *('-c', WITHOUT_TORCH),
      f'--config={config}',
      f'--config.init_from={test_data / "ckpt_stories260K" / "hf"}',
      f'--workdir={tmp_path / "scores"}',
    ],
    cwd=runs.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  assert f'| extra | {task}@lm_eval | {task}/acc ↑ |' in found.stdout


def test_letters_are_checked_before_anything_runs(test_data, tmp_path):
  """stories260K spells A with two pieces: no token of its own to score."""
  exam_files.write_ceval(tmp_path)
  settings = dict(path=tmp_path, subjects=('law',), num_shots=0)
  tokenizer = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')
  for protocol in ('ceval@official', 'ceval@cla'):
    exam = evaluators.make(multiple_choice, protocol=protocol, **settings)
    with pytest.raises(ValueError, match='they are not distinct single tokens'):
      exam.check(tokenizer)
  evaluators.make(multiple_choice, protocol='ceval@lmeval', **settings).check(
    tokenizer
  )
