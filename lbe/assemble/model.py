"""The architecture, the tokenizer and the parameters that a config asks for."""

import base64
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from lbe.assemble import data
from lbe.convert import stored
from lbe.data import sources as sources_lib
from lbe.inference import model as model_lib
from lbe.mesh import hosts
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import lora
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import identity
from lbe.run import progress
from lbe.text import files
from lbe.vocab import tokenizers


def make_config(config, tokenizer: tokenizers.Tokenizer) -> architecture.Config:
  """The architecture of a run from scratch; rows from the tokenizer."""
  m = config.model
  if m.preset:
    if m.preset not in architecture.PRESETS:
      raise ValueError(
        f'model.preset={m.preset!r} is unknown; take one of '
        f'{", ".join(architecture.PRESETS)}.'
      )
    return dataclasses.replace(
      architecture.PRESETS[m.preset],
      vocab_size=tokenizer.vocab_size,
      vocab_multiple=config.vocab_multiple,
    )
  missing = [
    name
    for name in ('dim', 'num_layers', 'num_heads', 'mlp_dim')
    if m[name] < 1
  ]
  if missing:
    raise ValueError(
      f'model.{missing[0]}={m[missing[0]]}: a model from scratch needs '
      'model.preset, or dim, num_layers, num_heads and mlp_dim; to go on '
      'from trained weights set init_from.'
    )
  num_kv_heads = m.num_kv_heads or m.num_heads
  if m.num_heads % num_kv_heads:
    raise ValueError(
      f'model.num_kv_heads={num_kv_heads} does not divide '
      f'model.num_heads={m.num_heads}; take a divisor of it.'
    )
  return architecture.Config(
    vocab_size=tokenizer.vocab_size,
    dim=m.dim,
    num_layers=m.num_layers,
    num_heads=m.num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=m.head_dim or m.dim // m.num_heads,
    mlp_dim=m.mlp_dim,
    max_positions=m.max_positions,
    rope_theta=m.rope_theta,
    norm_eps=m.norm_eps,
    tied=m.tied,
    vocab_multiple=config.vocab_multiple,
    init_std=m.init_std,
  )


def adapted_config(config, model: architecture.Config) -> architecture.Config:
  """The architecture with the adapters that the config asks for.

  Raises ValueError where the weights come with others.
  """
  fields = config.lora.to_dict()
  if not fields['params']:
    return model
  fields.pop('dropout')
  asked = lora.make(**fields)
  if model.lora not in (None, asked):
    raise ValueError(
      f'{config.init_from} has adapters already ({model.lora}), and lora asks '
      f'for {asked}; leave lora.params empty to go on with them, or export '
      'the model, which merges them, and start from that.'
    )
  return dataclasses.replace(model, lora=asked)


def extended_config(
  opened: stored.Opened, tokenizer: tokenizers.Tokenizer
) -> architecture.Config:
  """The architecture of the opened weights with a row for every piece."""
  return dataclasses.replace(opened.config, vocab_size=tokenizer.vocab_size)


def make_architecture(
  config,
  opened: stored.Opened | None,
  tokenizer: tokenizers.Tokenizer,
) -> architecture.Config:
  """That of a run: of its weights, with what it adds to them, or from scratch.

  Weights get rows for new pieces of the tokenizer, and adapters.
  """
  if opened is None:
    return make_config(config, tokenizer)
  model = opened.config
  if is_extended(opened, tokenizer):
    model = extended_config(opened, tokenizer)
  return adapted_config(config, model)


def origin(
  config, opened: stored.Opened | None, frozen: Sequence[str]
) -> dict[str, Any]:
  """{'base': where a run's adapters belong, 'frozen': what is as it is there}.

  That is init_from; adapters that it has already stay those of their own base.
  """
  if opened is None or opened.config.lora is None:
    return {'base': config.init_from, 'frozen': list(frozen)}
  first = opened.info
  return {
    'base': first['base'],
    'frozen': [name for name in frozen if name in first['frozen']],
  }


def open_weights(
  config, workdir: str | pathlib.Path | None = None
) -> stored.Opened | None:
  """The model of init_from, not yet loaded; None for a run from scratch.

  Of a run that goes on from a checkpoint in `workdir` it is the newest there:
  the base may be gone.
  """
  if not config.init_from:
    return None
  path = config.init_from
  if workdir and checkpoint.is_checkpoint(workdir):
    newest = checkpoint.find(workdir)
    path = newest if newest.name != '0' else path
  return stored.open_model(path, vocab_multiple=config.vocab_multiple)


def base_fingerprint(
  config, opened: stored.Opened | None, recorded: dict | None
) -> str | None:
  """The fingerprint of init_from, of which `recorded` told at the start.

  The same path is not looked at again. Raises ValueError where another path
  holds no model.
  """
  if opened is None:
    return None
  if recorded and recorded['config'].get('init_from') == config.init_from:
    return recorded.get('base')
  if not recorded:
    return opened.fingerprint()
  return stored.open_model(config.init_from).fingerprint()


def make_execution(config) -> forward.Execution:
  return forward.Execution(**config.execution.to_dict())


def init_params(
  model: architecture.Config, mesh: jax.sharding.Mesh, seed: int
) -> dict:
  """Random parameters, each created in its shards."""

  def init_params(key):
    return weights.init(model, key)

  shardings = sharding.shardings(mesh, weights.dims(model))
  return _jit_once(init_params, shardings)(jax.random.key(seed))


def init_adapters(
  model: architecture.Config, mesh: jax.sharding.Mesh, seed: int
) -> dict:
  """New adapters in their shards: the model computes as without them."""
  shardings = sharding.shardings(mesh, weights.dims(model))

  def init_adapters(key):
    return weights.init(model, key)['lora']

  return _jit_once(init_adapters, shardings['lora'])(jax.random.key(seed))


def _jit_once(function, out_shardings):
  """Of what runs once: compiling it well would take longer than it runs."""
  return jax.jit(
    function,
    out_shardings=out_shardings,
    compiler_options={'xla_backend_optimization_level': 1},
  )


def as_evaluated(
  params: dict,
  model: architecture.Config,
  tokenizer: tokenizers.Tokenizer,
  mesh: jax.sharding.Mesh,
  config,
) -> model_lib.Model:
  """The inference.model.Model of live parameters."""
  return model_lib.Model(
    params=params,
    config=model,
    tokenizer=tokenizer,
    mesh=mesh,
    execution=make_execution(config),
    batch_size=config.eval_batch_size,
    max_len=model.max_positions,
  )


def make_tokenizer(
  config,
  opened: stored.Opened | None,
  workdir: str | pathlib.Path,
  *,
  may_extend: bool = False,
  going_on: str | pathlib.Path | None = None,
) -> tokenizers.Tokenizer:
  """The run's tokenizer; trains one where the config says 'train'.

  Unless the run goes on from a checkpoint, which has the one it trained.

  A tokenizer that is given beside `init_from` must be the one that the
  weights were trained with or, with `may_extend`, an extension of it:
  ValueError otherwise.
  """
  name = config.tokenizer
  if name == 'train':
    if opened is not None:
      raise ValueError(
        "tokenizer='train' makes new pieces, but init_from has weights for "
        'its own; leave tokenizer empty or init_from empty.'
      )
    if going_on:
      meta = checkpoint.read_meta(going_on)
      return stored.tokenizer_from_meta(meta['tokenizer'])
    return _train_tokenizer(config, pathlib.Path(workdir))
  if name:
    tokenizer = _load_tokenizer(name, opened, workdir)
    if may_extend and is_extended(opened, tokenizer):
      return tokenizer
    if opened is not None and opened.tokenizer is not None:
      tokenizers.check_same(
        opened.tokenizer.fingerprint,
        tokenizer,
        where=opened.path,
        base=opened.tokenizer,
      )
  elif opened is None:
    raise ValueError(
      "tokenizer='' and init_from='': a run from scratch needs "
      "--config.tokenizer=PATH, 'bytes', or 'train'."
    )
  elif opened.tokenizer is None:
    raise ValueError(
      f'{opened.path} has no tokenizer; give --config.tokenizer=PATH.'
    )
  else:
    tokenizer = opened.tokenizer
  if opened is not None:
    tokenizers.check_rows(tokenizer, opened.config.vocab_size)
  return tokenizer


def _load_tokenizer(name, opened, workdir):
  """The tokenizer at a path; of a run that resumes the path may be gone."""
  began = identity.recorded(workdir) or {}
  if (
    not pathlib.Path(name).exists()
    and opened is not None
    and opened.tokenizer is not None
    and began.get('config', {}).get('tokenizer') == name
    and began['tokenizer'] == opened.tokenizer.fingerprint
  ):
    return opened.tokenizer
  return tokenizers.load(name)


def is_extended(
  opened: stored.Opened | None, tokenizer: tokenizers.Tokenizer
) -> bool:
  """Whether the tokenizer extends that of the opened weights.

  Raises ValueError where it does, but ids and rows of the weights differ.
  """
  if opened is None or opened.tokenizer is None:
    return False
  if not tokenizers.is_extension(tokenizer, opened.tokenizer):
    return False
  num_old = opened.tokenizer.vocab_size
  if opened.config.vocab_size != num_old:
    raise ValueError(
      f'{opened.path} has {opened.config.vocab_size} rows for {num_old} '
      'pieces; new pieces would get rows that are there already. Export it '
      'with as many rows as pieces first.'
    )
  return True


def _train_tokenizer(config, workdir):
  from lbe.vocab import train  # only here: from scratch

  target = workdir / 'tokenizer' / 'tokenizer.model'
  first = jax.process_index() == 0
  # Beside it: another size, or other texts, would get it without a word.
  trained_on = target.with_name('trained_on.json')
  facts = None
  if first:
    facts = {
      'vocab_size': config.tokenizer_vocab_size,
      'texts': data.texts_fingerprints(config, workdir),
    }
    _drop_another(target, trained_on, facts)
  if first and not target.exists():
    target.parent.mkdir(parents=True, exist_ok=True)
    # Before the tokenizer: what is there is what it says.
    files.write_whole(trained_on, json.dumps(facts, indent=2))
    texts = (
      sources_lib.plain(source, text)  # of a conversation what is said
      for source in data.make_sources(config).values()
      for text, _ in sources_lib.documents(source)
    )
    with progress.doing('training the tokenizer'):
      train.train_sentencepiece(
        texts,
        target,
        vocab_size=config.tokenizer_vocab_size,
      )
  # The others need not see that folder.
  text = base64.b64encode(target.read_bytes()).decode() if first else None
  text = hosts.share('tokenizer', text, limit_seconds=hosts.DAY)
  return tokenizers.from_bytes('sentencepiece', base64.b64decode(text))


def _drop_another(target, trained_on, facts):
  """Deletes a trained tokenizer that is not the one of `facts`.

  Raises ValueError where a run has begun with it.
  """
  if not target.exists():
    return
  if trained_on.exists():
    old = files.read_json(trained_on)
  else:  # of an earlier version, which kept no more than the model
    old = facts | {'vocab_size': tokenizers.load(target).vocab_size}
  differs = []
  if old['vocab_size'] != facts['vocab_size']:
    differs.append(
      f'tokenizer_vocab_size={facts["vocab_size"]} is asked for, and it has '
      f'{old["vocab_size"]} pieces'
    )
  texts = [
    f'data.sources.{name}'
    for name in sorted(old['texts'].keys() | facts['texts'].keys())
    if old['texts'].get(name) != facts['texts'].get(name)
  ]
  if texts:
    differs.append(f'it was trained on other texts ({", ".join(texts)})')
  if not differs:
    return
  workdir = target.parent.parent
  if identity.recorded(workdir) or checkpoint.is_checkpoint(workdir):
    raise ValueError(
      f'{target} is the tokenizer of the run that began there: '
      f'{"; ".join(differs)}. Set these back, or take another --workdir.'
    )
  target.unlink()
