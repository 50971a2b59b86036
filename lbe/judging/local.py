"""A judge that is a model on disk, asked through our own engine.

It judges greedily, so each prompt is asked once. It lies in memory, on the
devices of this host, only while it judges.
"""

import hashlib

import jax
from etils import epath

from lbe.chat import messages
from lbe.chat import prompts as prompts_lib
from lbe.convert import stored
from lbe.inference import model as model_lib
from lbe.judging import asked
from lbe.mesh import sharding
from lbe.models import forward


class Local:
  """A judge as `asked.ask` sees it; looked at now, loaded when it is asked."""

  def __init__(self, *, model, template, max_new_tokens, batch_size, dtype):
    """Raises ValueError where there is no model, or no tokenizer with it."""
    if jax.process_count() > 1:
      raise ValueError(
        f"judge.kind='local' works in one process, and there are "
        f'{jax.process_count()}; take common.people() here, which keeps the '
        'responses, and judge them in one process with `responses` set.'
      )
    if not model:
      raise ValueError(
        "judge.model='': give the checkpoint or Hugging Face folder that "
        'judges.'
      )
    self._opened = stored.open_model(model)
    if self._opened.tokenizer is None:
      raise ValueError(f'{model} has no tokenizer to judge with.')
    if not 1 <= max_new_tokens < self._opened.config.max_positions:
      raise ValueError(
        f'judge.max_new_tokens={max_new_tokens} leaves no prompt in the '
        f'{self._opened.config.max_positions} positions of {model}.'
      )
    if batch_size < 1:
      raise ValueError(f'judge.batch_size={batch_size} is below 1.')
    if dtype not in ('float32', 'bfloat16'):
      raise ValueError(
        f'judge.dtype={dtype!r} is unknown; take float32 or bfloat16.'
      )
    self._encoder = prompts_lib.Encoder(template, self._opened.tokenizer)
    self._max_new_tokens = max_new_tokens
    self._batch_size = batch_size
    self._dtype = dtype
    self.name = str(model)
    self.identity = {
      'model': self._opened.path,
      'files': _listing(self._opened.folder),
      'config': self._opened.config.to_json(),
      'tokenizer': self._opened.tokenizer.fingerprint,
      'template': _listing(template) if template[-6:] == '.jinja' else template,
      'max_new_tokens': max_new_tokens,
      **self._encoder.ends(),
      'compute_dtype': dtype,
    }

  def replies(self, conversations):
    """Yields (index, asked.Reply), batch by batch, the short ones first.

    A conversation that leaves no room for the reply is an error of its own.
    """
    prompts = [
      self._encoder.of_turns([messages.Message(**turn) for turn in talk])
      for talk in conversations
    ]
    room = self._opened.config.max_positions - self._max_new_tokens
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for i in order:
      if len(prompts[i]) > room:
        yield (
          i,
          asked.Reply(
            error=f'the prompt of {len(prompts[i])} tokens leaves no room for '
            f'{self._max_new_tokens} new ones in the '
            f'{self._opened.config.max_positions} positions of {self.name}'
          ),
        )
    order = [i for i in order if len(prompts[i]) <= room]
    if not order:
      return
    model = self._load()
    for start in range(0, len(order), self._batch_size):
      batch = order[start : start + self._batch_size]
      responses = model.generate(
        [prompts[i] for i in batch],
        max_new_tokens=self._max_new_tokens,
        **self._encoder.ends(),
      )
      for i, response in zip(batch, responses, strict=True):
        yield i, asked.Reply(response.text, response.ended)

  def _load(self):
    mesh = sharding.make_mesh({'fsdp': -1}, devices=jax.local_devices())
    return model_lib.Model(
      params=self._opened.load_params(mesh, dtype=self._dtype),
      config=self._opened.config,
      tokenizer=self._opened.tokenizer,
      mesh=mesh,
      execution=forward.Execution(compute_dtype=self._dtype),
      batch_size=self._batch_size,
      max_len=self._opened.config.max_positions,
    )


def _listing(path):
  """A hash of a folder's files: names, sizes and times, not their bytes."""
  listed = []
  for p in _files(epath.Path(path)):
    stat = p.stat()
    listed.append((str(p), stat.length, stat.mtime))
  return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]


def _files(path):
  if not path.is_dir():
    yield path
    return
  for p in sorted(path.iterdir()):
    yield from _files(p)
