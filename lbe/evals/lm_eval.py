"""Tasks of lm-evaluation-harness, scored and written by our own engine.

The harness builds the requests and the metrics; it runs in this process and
without torch. Its thousands of tasks read their data from the Hugging Face
hub, or from files where a task says so (`include_path`).
"""

import collections
import importlib
import json

from lbe.evals import core
from lbe.exams import item
from lbe.inference import score
from lbe.vocab import tokenizers


def make(
  *,
  tasks,
  include_path,
  num_fewshot,
  limit,
  bos,
  cut,
  max_new_tokens,
):
  """The tasks, found by the harness; None where none is named.

  `num_fewshot` None leaves each task's own. Raises ValueError for a task that
  the harness does not know, and where it is not installed.
  """
  if not tasks:
    return None
  _library()
  from lm_eval.tasks import TaskManager

  # The harness reads thousands of files to know its own tasks.
  manager = include_path and TaskManager(
    include_path=include_path, include_defaults=False
  )
  if not manager or not set(tasks) <= set(manager.all_subtasks):
    manager = TaskManager(include_path=include_path or None)
  known = set(manager.all_tasks)
  for task in tasks:
    if task not in known:
      near = sorted(t for t in known if task.split('_')[0] in t)[:8]
      raise ValueError(
        f'lm-evaluation-harness has no task {task!r}'
        f'{"; similar: " + ", ".join(near) if near else ""}; own task files '
        'are found in include_path.'
      )
  return Tasks(
    tuple(tasks),
    manager,
    num_fewshot=num_fewshot,
    limit=limit or None,
    bos=bos,
    cut=cut,
    max_new_tokens=max_new_tokens,
  )


def _library():
  try:
    return importlib.import_module('lm_eval')
  except ImportError as error:
    raise ValueError(
      "tasks of lm-evaluation-harness need it: pip install 'lbe[lm_eval]'."
    ) from error


class Tasks:
  """Tasks of the harness with the settings of a run."""

  def __init__(
    self, tasks, manager, *, num_fewshot, limit, bos, cut, max_new_tokens
  ):
    self._tasks = tasks
    self._manager = manager
    self._num_fewshot = num_fewshot
    self._limit = limit
    self._settings = dict(bos=bos, cut=cut, max_new_tokens=max_new_tokens)

  def better(self) -> dict:
    """Which way each of the harness's metrics is better, as core.BETTER."""
    from lm_eval.api import metrics  # noqa: F401, where they are registered
    from lm_eval.api import registry

    return {
      f'TASK/{metric}': core.HIGHER if up else core.LOWER
      for metric, up in registry.HIGHER_IS_BETTER_REGISTRY.items()
    }

  def run(self, model):
    """What `lm_eval.simple_evaluate` returns."""
    import lm_eval

    return lm_eval.simple_evaluate(
      model=adapt(model, **self._settings),
      tasks=list(self._tasks),
      num_fewshot=self._num_fewshot,
      limit=self._limit,
      task_manager=self._manager,
      log_samples=True,
      bootstrap_iters=0,
    )

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: each metric of each task and group, as TASK/METRIC.

    Where filters of the harness read several from the same texts, they are
    TASK/METRIC/FILTER.
    """
    import lm_eval

    results = self.run(model)
    rows, metrics, better = [], {}, self.better()
    sizes = results.get('n-samples', {})
    for task, values in {
      **results['results'],
      **results.get('groups', {}),
    }.items():
      texts = [
        json.dumps(sample['doc'], sort_keys=True, default=str)
        for leaf in _leaves(task, results.get('group_subtasks', {}))
        for sample in results['samples'].get(leaf, ())
      ]
      kinds = collections.Counter(key.partition(',')[0] for key in values)
      for key, value in values.items():
        metric, _, kind = key.partition(',')
        if (
          not isinstance(value, (int, float)) or 'stderr' in metric or not kind
        ):
          continue
        score_name = f'{task}/{metric}'
        if kinds[metric] > 1:  # two rows of one name would be one
          score_name += f'/{kind}'
        told = {}
        if metric == 'acc':
          told = _one_answer(results['samples'].get(task, ()), kind)
        rows.append(
          model.row(
            step=step,
            evaluator=name,
            unit='documents',
            protocol=f'{task}@lm_eval',
            better=better.get(f'TASK/{metric}', ''),
            data_hash=core.data_hash(texts),
            name=score_name,
            value=float(value),
            # A group has no documents of its own, but those of its tasks.
            count=values.get('sample_len')
            or sizes.get(task, {}).get('effective', len(texts)),
            num_fewshot=results['n-shot'].get(task),
            filter=kind,
            lm_eval=lm_eval.__version__,
            **{k: self._settings[k] for k in ('bos', 'cut')},
            **told,
          )
        )
        metrics[score_name] = float(value)
    predictions = [
      {
        'step': step,
        'evaluator': name,
        'id': f'{task}/{sample["doc_id"]}',
        'filter': sample['filter'],
        'target': str(sample['target']),
        'responses': sample['filtered_resps'],
      }
      for task, samples in results['samples'].items()
      for sample in samples
    ]
    return core.Result(rows, metrics, json.loads(json.dumps(predictions)))


def _leaves(task, groups):
  """The tasks of a group, and of the groups in it; of a task itself."""
  if not groups.get(task):
    return [task]
  return [leaf for part in groups[task] for leaf in _leaves(part, groups)]


def _one_answer(samples, kind):
  """Facts of core.one_answer, by letters; {} of tasks that are no choice."""
  chosen, golds = [], []
  for sample in samples:
    answers, target = sample['filtered_resps'], sample['target']
    target = target if isinstance(target, list) else [target]
    if sample.get('filter', kind) != kind or not all(
      isinstance(x, list | tuple) and len(x) == 2 for x in answers
    ):
      continue
    if len(answers) > len(item.ALPHABET) or not all(
      isinstance(x, int) and 0 <= x < len(answers) for x in target
    ):
      return {}
    best = max(range(len(answers)), key=lambda i: answers[i][0])
    chosen.append(item.ALPHABET[best])
    golds.append([item.ALPHABET[x] for x in target])
  return core.one_answer(chosen, golds)


def adapt(model, *, bos, cut, max_new_tokens):
  """A `lm_eval.api.model.TemplateLM` around a inference.model.Model.

  `bos` puts BOS before each context, None where that is the tokenizer's habit,
  and (as the harness then does) before the text of a rolling log-likelihood,
  where it is predicted from BOS too.
  """
  _library()
  from lm_eval.api.model import TemplateLM
  from lm_eval.models import utils

  tokenizer = model.tokenizer

  class Adapter(TemplateLM):
    backend = 'causal'
    eot_token_id = tokenizer.eos_id
    prefix_token_id = score.prefix_id(tokenizer)
    max_length = model.max_len
    tokenizer_name = tokenizer.fingerprint[:16]

    def tok_encode(self, string, add_special_tokens=None, **unused):
      del unused
      ids = tokenizer.encode(string)
      special = bos if add_special_tokens is None else add_special_tokens
      return tokenizers.start_ids(tokenizer, special) + ids

    def loglikelihood(self, requests, disable_tqdm=False):
      pairs = [request.args for request in requests]
      split = score.split(tokenizer, pairs, bos=bos, cut=cut)
      return self._loglikelihood_tokens(
        [(pair, *ids) for pair, ids in zip(pairs, split, strict=True)],
        disable_tqdm,
      )

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **unused):
      del unused
      scored = [
        score.continuation(context, ids, max_len=model.max_len)[0]
        for _, context, ids in requests
      ]
      answers = [
        (s.logprob, s.greedy)
        for s in model.score(
          scored, progress='' if disable_tqdm else 'loglikelihood'
        )
      ]
      for (pair, *_), answer in zip(requests, answers, strict=True):
        if pair is not None:
          self.cache_hook.add_partial('loglikelihood', pair, answer)
      return answers

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
      texts = [request.args[0] for request in requests]
      nats_N = core.rolling_nats(
        model,
        [self.tok_encode(text) for text in texts],
        progress='' if disable_tqdm else 'rolling',
      )
      totals = (0.0 - nats_N).tolist()  # of no tokens 0.0, not -0.0
      for text, total in zip(texts, totals, strict=True):
        self.cache_hook.add_partial('loglikelihood_rolling', (text,), total)
      return totals

    def generate_until(self, requests, disable_tqdm=False):
      del disable_tqdm
      # Requests of one setting are one batch.
      grouped = {}
      for i, request in enumerate(requests):
        key = json.dumps(request.args[1], sort_keys=True)
        grouped.setdefault(key, []).append(i)
      batches = []
      for key, members in grouped.items():
        settings = utils.normalize_gen_kwargs(json.loads(key), max_new_tokens)
        size = settings['max_gen_toks']
        if size >= model.max_len:
          raise ValueError(
            f'{requests[members[0]].task_name} asks for {size} new tokens, '
            f'which leave no place for a prompt in the {model.max_len} '
            'positions of the model; ask for fewer: by max_new_tokens where '
            'the task does not say, else in generation_kwargs of a task file '
            'of your own, found in include_path.'
          )
        batches.append((members, settings))
      texts = [''] * len(requests)
      for members, settings in batches:
        size, sampled = settings['max_gen_toks'], settings['do_sample']
        stop = [s for s in settings['until'] if s]
        prompts = []
        for i in members:
          ids = self.tok_encode(requests[i].args[0])
          prompts.append(ids[-(model.max_len - size) :])
        responses = model.generate(
          prompts,
          max_new_tokens=size,
          stop=stop,
          temperature=settings.get('temperature', 1.0) if sampled else 0.0,
          top_p=settings.get('top_p', 1.0) if sampled else 1.0,
        )
        for i, response in zip(members, responses, strict=True):
          # As the harness, without the prompt: a leading space is lost.
          text = tokenizer.decode(response.ids)
          ends = [at for s in stop if (at := text.find(s)) >= 0]
          texts[i] = text[: min(ends, default=len(text))]
          self.cache_hook.add_partial(
            'generate_until', requests[i].args, texts[i]
          )
      return texts

  return Adapter()
