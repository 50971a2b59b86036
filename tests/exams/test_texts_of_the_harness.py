"""MGSM and XQuAD by lm-evaluation-harness's own task files and model."""

from lbe.evals import exam
from lbe.evals import generation

import evaluators
import exam_files
import harness

SAME = {'prompts_differ': 0, 'answers_differ': 0}


def test_texts_are_those_of_the_harness(test_data, tmp_path):
  """Token for token, too long prompts too, and MGSM's two scores."""
  folder = test_data / 'ckpt_stories260K' / 'hf'
  ours = harness.load_ours(folder, batch_size=4)
  target = tmp_path / 'tokenizer'
  target.mkdir()
  harness.vocab_export.write(ours.tokenizer, target, max_positions=512)
  second = exam_files.TIM | {'id': 'q2', 'question': 'Tim?'}
  path = exam_files.write_squad(tmp_path / 'x.json', exam_files.TIM, second)
  languages = ('bn', 'en')
  tasks = [
    harness.mgsm_task(tmp_path, test_data, x, limit=2) for x in languages
  ]
  tasks.append(harness.xquad_task(tmp_path, path, 'en'))
  theirs = harness.load_theirs(folder, target, bos=True, batch_size=1)
  expected, _ = harness.run(
    theirs, tmp_path, tasks, num_fewshot=0, gen_kwargs={'max_gen_toks': 16}
  )

  mgsm = evaluators.make(
    exam,
    path=test_data / 'bench_mgsm',
    protocol='mgsm@direct',
    subjects=languages,
    limit=2,
    max_new_tokens=16,
  ).evaluate(ours, name='mgsm', step=0)
  same = {'answers': 4, **SAME, 'scores_differ': 0}
  assert harness.mgsm_equals(mgsm, expected) == same
  assert any(p['cut_tokens'] for p in mgsm.predictions)
  rows = {r['name']: r for r in mgsm.rows}
  for name in ('score_rate', 'lmeval_flexible_extract'):
    assert rows[name]['count'] == 4 and rows[f'{name}/bn']['count'] == 2
    assert rows[f'{name}/bn']['unit'] == 'questions'

  xquad = evaluators.make(
    generation, path=path, language='en', max_new_tokens=16
  ).evaluate(ours, name='xquad', step=0)
  same = {'answers': 2, **SAME}
  assert harness.xquad_equals(xquad, expected, 'en') == same
  assert all(p['response'].strip() for p in xquad.predictions)
  assert not any('\n' in p['response'] for p in xquad.predictions)
