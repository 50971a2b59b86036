"""From a config to the parts of a run: every program builds them here.

Only this module and the programs see a config. What it makes (tokenizer,
mesh, data, model shapes, optimizer, step) is handed on as plain values.
"""

import base64
import dataclasses
import functools
import importlib
import math
import pathlib

import jax

from lbe.data import build
from lbe.data import cleaning
from lbe.data import loader as loader_lib
from lbe.data import order as order_lib
from lbe.data import sources as sources_lib
from lbe.evals import perplexity
from lbe.inference import model as model_lib
from lbe.mesh import hosts
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.models import llama
from lbe.models import lora
from lbe.run import program
from lbe.training import groups
from lbe.training import optim
from lbe.training import step as step_lib
from lbe.vocab import rows
from lbe.vocab import tokenizers

# ------------------------------------------------------------------ models


def make_model_config(config, tokenizer):
  """The architecture of a run from scratch; rows from the tokenizer."""
  m = config.model
  if m.preset:
    if m.preset not in llama.PRESETS:
      raise ValueError(
        f'model.preset={m.preset!r} is unknown; take one of '
        f'{", ".join(llama.PRESETS)}.'
      )
    return dataclasses.replace(
      llama.PRESETS[m.preset],
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
  return llama.Config(
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


def adapted_config(config, model):
  """The architecture with the adapters that the config asks for.

  Raises ValueError where the weights come with others.
  """
  fields = config.lora.to_dict()
  if not fields['params']:
    return model
  fields.pop('dropout')
  found = lora.make(**fields)
  if model.lora not in (None, found):
    raise ValueError(
      f'{config.init_from} has adapters already ({model.lora}), and lora asks '
      f'for {found}; leave lora.params empty to go on with them, or export '
      'the model, which merges them, and start from that.'
    )
  return dataclasses.replace(model, lora=found)


def init_adapters(model, mesh, seed):
  """New adapters in their shards: the model computes as without them."""
  places = sharding.shardings(mesh, llama.dims(model))

  def init_adapters(key):
    return llama.init(model, key)['lora']

  return _jit_once(init_adapters, places['lora'])(jax.random.key(seed))


def _jit_once(function, out_shardings):
  """Of what runs once: compiling it well would take longer than it runs."""
  return jax.jit(
    function,
    out_shardings=out_shardings,
    compiler_options={'xla_backend_optimization_level': 1},
  )


def make_execution(config):
  return llama.Execution(**config.execution.to_dict())


# --------------------------------------------------------------- tokenizer


def make_tokenizer(config, opened, workdir, *, may_extend=False):
  """The run's tokenizer; trains one where the config says 'train'.

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
    return _train_tokenizer(config, pathlib.Path(workdir))
  if name:
    tokenizer = tokenizers.load(name)
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


def is_extended(opened, tokenizer):
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


def extended_config(opened, tokenizer):
  """The architecture of the opened weights with a row for every piece."""
  return dataclasses.replace(opened.config, vocab_size=tokenizer.vocab_size)


def extend_params(
  opened,
  tokenizer,
  model,
  mesh,
  params,
  *,
  method,
  match_norms,
  dictionary,
  seed,
  say=print,
):
  """`params` of the opened weights get rows for the tokenizer's new pieces.

  `model` is the extended architecture; both matrices come in their shards.
  `method` and `match_norms` are those of rows.make, `dictionary` the file of
  the method of that name.
  """
  if (method == 'dictionary') != bool(dictionary):
    raise ValueError(
      f'new_rows.method={method!r} with dictionary={dictionary!r}: the method '
      "'dictionary' needs a file, and only it does."
    )
  if dictionary:
    spellings, num_found = rows.translate(
      opened.tokenizer, tokenizer, dictionary
    )
    say(
      f'{dictionary}: {num_found:,} of {len(spellings):,} new pieces have a '
      'translation; the others start from the rows that spell them'
    )
  else:
    spellings = rows.spell(opened.tokenizer, tokenizer)
  shardings = sharding.shardings(mesh, llama.dims(model))
  # One matrix after the other, and the old one is let go: `params` changes.
  for i, name in enumerate(('embed_VD', 'head_DV')):
    if name in params:
      extend = functools.partial(
        rows.extend,
        name=name,
        spellings=spellings,
        num_old=opened.tokenizer.vocab_size,
        num_rows=model.padded_vocab_size,
        constrain=sharding.constrain(mesh),
        method=method,
        key=jax.random.fold_in(jax.random.key(seed), i),
        match_norms=match_norms,
      )
      extend = jax.jit(extend, out_shardings=shardings[name])
      params[name] = extend(params[name])
  return params


def describe_extension(config, opened, model, params, evaluators, mesh):
  """Lines about the new rows before the first step.

  For each set of texts: bits per byte in the base's pieces with the new ones
  masked (the base model's own score), and the probability that the new rows
  take from each token there (a geometric mean).
  """
  num_old = opened.tokenizer.vocab_size
  lines = []
  for name in ('embed_VD', 'head_DV'):
    if name in params:
      rows_VD = params[name] if name == 'embed_VD' else params[name].T
      norm_V = jax.numpy.linalg.norm(rows_VD, axis=1)
      lines.append(
        f'{name}: mean norm of old rows {norm_V[:num_old].mean():.4f}, of new '
        f'rows {norm_V[num_old : model.vocab_size].mean():.4f}'
      )
  for e in evaluators:
    documents = getattr(e.task, 'documents', [None])
    if not isinstance(documents[0], str):
      continue  # conversations have the extended tokenizer's ids
    nats = []
    for c in (dataclasses.replace(model, vocab_size=num_old), model):
      seen = as_evaluated(params, c, opened.tokenizer, mesh, config)
      seen = dataclasses.replace(
        seen, max_len=min(e.task.max_len, seen.max_len)
      )
      found, num_tokens = perplexity.document_nats(seen, documents)
      nats.append(found.sum())
    num_bytes = sum(len(text.encode()) for text in documents)
    mass = -math.expm1((nats[0] - nats[1]) / num_tokens.sum())
    lines.append(
      f'{e.name} in the pieces of the base: '
      f'{nats[0] / math.log(2) / num_bytes:.4f} bits per byte with the new '
      f'pieces masked; they take {mass:.2%} of the probability'
    )
  return '\n'.join(lines)


def _train_tokenizer(config, workdir):
  from lbe.vocab import train  # only here: from scratch

  target = workdir / 'tokenizer' / 'tokenizer.model'
  first = jax.process_index() == 0
  if first and not target.exists():
    target.parent.mkdir(parents=True, exist_ok=True)
    texts = (
      text
      for source in make_sources(config).values()
      for text, _ in sources_lib.documents(source)
    )
    train.train_sentencepiece(
      texts,
      target,
      vocab_size=config.tokenizer_vocab_size,
    )
  # The others need not see that folder.
  text = base64.b64encode(target.read_bytes()).decode() if first else None
  text = hosts.share('tokenizer', text, limit_seconds=hosts.DAY)
  return tokenizers.from_bytes('sentencepiece', base64.b64decode(text))


# -------------------------------------------------------------------- data


def make_sources(config):
  """The sources of the config by name, proportions checked.

  Raises ValueError where there is none, a path is missing, or the
  proportions are negative or do not sum to 1.
  """
  named = config.data.sources.to_dict()
  if not named:
    raise ValueError(
      'data.sources is empty; add one in the config: '
      "config.data.sources.zh = common.source(path='zh/')."
    )
  result = {}
  for name, fields in named.items():
    if not fields['path']:
      raise ValueError(
        f'data.sources.{name}.path is empty; give '
        f'--config.data.sources.{name}.path=FILE_OR_FOLDER.'
      )
    for limit in ('max_documents', 'max_bytes', 'max_tokens'):
      fields[limit] = fields[limit] or None
    del fields['max_epochs']  # asked once the run's length is known
    rules = cleaning.Rules(**fields.pop('cleaning'))
    result[name] = sources_lib.make(
      name,
      cleaning=None if rules == cleaning.Rules() else rules,
      **fields,
    )
  shares = {name: source.proportion for name, source in result.items()}
  negative = [name for name, share in shares.items() if share < 0]
  if negative:
    raise ValueError(
      f'data.sources.{negative[0]}.proportion={shares[negative[0]]} is '
      'negative; shares of the training tokens lie between 0 and 1.'
    )
  if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
    raise ValueError(
      f'the proportions of data.sources sum to {sum(shares.values()):g} '
      f'({shares}); they are shares of the training tokens and sum to 1.'
    )
  return result


def prepare_data(config, tokenizer, workdir, *, elsewhere=None):
  """Every source tokenized, by name; made once, by process 0.

  `elsewhere` is that of build.prepare. Hosts that do not see the folder of
  process 0 must have prepared their own: ValueError otherwise.
  """
  named = make_sources(config)
  for source in named.values():
    sources_lib.files(source)  # a wrong path is said before any work
  cache_dir = config.data.cache_dir or str(pathlib.Path(workdir) / 'data')

  def prepare_all(**how):
    return {
      name: build.prepare(
        source,
        tokenizer,
        cache_dir=cache_dir,
        num_workers=config.data.num_workers,
        bos=config.data.bos,
        eos=config.data.eos,
        seed=config.seed,
        seq_len=config.data.seq_len,
        elsewhere=elsewhere,
        **how,
      )
      for name, source in named.items()
    }

  first = jax.process_index() == 0
  blind = hosts.blind_to(cache_dir, 'data')
  if blind:
    lacks = None in prepare_all(may_make=False).values()
    lacking = [i for i, x in hosts.gather('data lacking', lacks).items() if x]
    if lacking:
      raise ValueError(
        f'{cache_dir} is not one folder that all hosts share, and there is no '
        f'tokenized data of this run on process {hosts.named(lacking)}. Let '
        'data.cache_dir be a folder that all mount, or run on each of these '
        f'hosts first:\n  {program.command("prepare")}'
      )
  elif first:
    prepare_all()
  hosts.wait_for_others('data', limit_seconds=hosts.DAY)
  return prepare_all(may_make=False)


def make_loader(config, prepared, tokenizer):
  return loader_lib.Loader(
    prepared,
    {name: s.proportion for name, s in config.data.sources.items()},
    seq_len=config.data.seq_len,
    batch_size=config.data.batch_size,
    seed=config.seed,
    tokenizer=tokenizer,
    packed=[name for name, s in config.data.sources.items() if s.template],
  )


def count_steps(config, prepared, loader):
  """Optimizer steps of the run's budget.

  Raises ValueError where not exactly one budget is set.
  """
  budget = config.budget.to_dict()
  of = budget.pop('of')
  given = {name: value for name, value in budget.items() if value}
  if len(given) != 1 or min(given.values()) < 0:
    raise ValueError(
      f'budget={given}: set exactly one of steps, tokens, documents, bytes '
      'and epochs, and make it positive.'
    )
  ((unit, amount),) = given.items()
  if unit == 'steps':
    return int(amount)
  tokens_per_step = config.data.seq_len * config.data.batch_size
  if unit == 'tokens':
    return math.ceil(amount / tokens_per_step)
  if of and of not in prepared:
    raise ValueError(
      f'budget.of={of!r} is no source; take one of {", ".join(prepared)}.'
    )
  # In shares of the mixture's rows: the room that a unit of text takes.
  chosen = [of] if of else list(prepared)
  share = sum(loader.row_share(name) for name in chosen)
  if not share:
    raise ValueError(
      f'budget.{unit} counts the text of {", ".join(chosen)}, whose '
      'proportion is 0; count another source, or give it a share.'
    )
  data = [prepared[name].train for name in chosen]
  room = sum(prepared[n].train.num_tokens / loader.fill(n) for n in chosen)
  total = {
    'epochs': 1,
    'documents': sum(d.num_documents for d in data),
    'bytes': sum(d.num_bytes for d in data),
  }[unit]
  return math.ceil(amount / total * room / share / tokens_per_step)


def check_epochs(config, loader, num_steps):
  """Raises ValueError where a source runs dry: seen more than `max_epochs`."""
  for name, epochs in loader.epochs(num_steps).items():
    most = config.data.sources[name].max_epochs
    if most and epochs > most:
      raise ValueError(
        f'data.sources.{name} would be seen {epochs:.2f} times in '
        f'{num_steps:,} steps, and max_epochs={most:g}: it runs dry. Lower its '
        'proportion or the budget, give it more text, or raise max_epochs.'
      )


# ------------------------------------------------------------------- step


@dataclasses.dataclass(frozen=True)
class Training:
  """What the train step needs, as shapes: nothing here is on a device."""

  model: llama.Config
  mesh: jax.sharding.Mesh
  abstract_state: dict  # ShapeDtypeStructs with their shardings
  abstract_batch: dict
  tx: object
  partition: groups.Partition
  step: object  # the jitted (state, batch) -> (state, metrics)


def check_fit(config, model, mesh, *, num_old=None):
  """Raises ValueError where rows, model, groups and mesh do not go together.

  It needs no data, so it is asked before hours of tokenizing.
  """
  make_execution(config)
  if not 0 <= config.lora.dropout < 1:
    raise ValueError(
      f'lora.dropout={config.lora.dropout} is no share; it lies from 0 up to, '
      'and without, 1.'
    )
  if config.lora.params and not config.init_from:
    raise ValueError(
      f'lora.params={config.lora.params!r}: adapters need trained weights '
      'beside them; set init_from.'
    )
  if config.data.seq_len > model.max_positions:
    raise ValueError(
      f"data.seq_len={config.data.seq_len} is longer than the model's "
      f'{model.max_positions} positions; shorten it.'
    )
  # However long the run will be: how long is known once the data is there.
  make_partition(config, model, 10**9, num_old=num_old)
  sharding.check(
    mesh,
    num_heads=model.num_heads,
    num_kv_heads=model.num_kv_heads,
    mlp_dim=model.mlp_dim,
    dim=model.dim,
    padded_vocab_size=model.padded_vocab_size,
    batch_size=config.data.batch_size,
    seq_len=config.data.seq_len,
    num_microbatches=config.num_microbatches,
  )


def compile_step(config, lowered):
  """The compiled train step, by the compiler options of the config.

  Raises ValueError for an option that is not NAME=VALUE, or that XLA lacks.
  """
  options = {}
  for option in config.compiler_options:
    name, given, value = option.partition('=')
    if not given:
      raise ValueError(
        f'compiler_options has {option!r}; write NAME=VALUE, as '
        "'xla_tpu_scoped_vmem_limit_kib=98304'."
      )
    options[name] = value
  try:
    return lowered.compile(compiler_options=options or None)
  except jax.errors.JaxRuntimeError as error:
    if 'compile option' not in str(error):
      raise
    raise ValueError(
      f'compiler_options={tuple(config.compiler_options)}: {error}; XLA takes '
      'other options for other devices.'
    ) from None


def memory_estimate(config, training):
  """Bytes on each device by part, before anything is compiled."""
  return step_lib.memory_estimate(
    training.abstract_state,
    training.model,
    partition=training.partition,
    mesh=training.mesh,
    batch_size=config.data.batch_size,
    seq_len=config.data.seq_len,
    num_microbatches=config.num_microbatches,
    execution=make_execution(config),
    gradient_dtype=config.optim.gradient_dtype,
  )


def check_memory(config, model, mesh, *, num_old=None):
  """Raises ValueError where the state alone is more than a device holds."""
  stats = mesh.local_devices[0].memory_stats() or {}
  partition = make_partition(config, model, 10**9, num_old=num_old)
  training = make_training(config, model, mesh, partition)
  step_lib.check_memory(
    memory_estimate(config, training), stats.get('bytes_limit')
  )


# A group with these values learns as it would without one.
_UNCHANGED = {
  'frozen': False,
  'from_step': 0,
  'peak_lr': None,
  'schedule': None,
  'weight_decay': None,
}


def make_partition(config, model, num_steps, *, num_old=None):
  """Which parameters learn, and how: the groups of the config, and the rest.

  `num_old` is the number of old rows of an extended vocabulary. Groups that
  change nothing are left out. Raises ValueError for groups that do not fit.
  """
  o = config.optim

  def group(name, fields):
    from_step = fields.pop('from_step', 0)
    if not 0 <= from_step < num_steps:
      raise ValueError(
        f'optim.groups.{name}.from_step={from_step} does not lie within the '
        f'{num_steps} steps of the run.'
      )
    own = {k: fields.pop(k, None) for k in ('peak_lr', 'schedule')}
    weight_decay = fields.pop('weight_decay', None)
    left = num_steps - from_step
    schedule = optim.make_schedule(
      kind=o.schedule if own['schedule'] is None else own['schedule'],
      peak_lr=o.peak_lr if own['peak_lr'] is None else own['peak_lr'],
      num_steps=left,
      warmup_steps=round(o.warmup_fraction * left),
      final_fraction=o.final_fraction,
      decay_steps=round(o.decay_fraction * left),
    )
    return groups.Group(
      name,
      schedule,
      o.weight_decay if weight_decay is None else weight_decay,
      from_step=from_step,
      **fields,
    )

  def changes(fields):
    return any(fields[k] != value for k, value in _UNCHANGED.items())

  named = {k: v for k, v in o.groups.to_dict().items() if changes(v)}
  partition = groups.Partition(
    [*(group(*item) for item in named.items()), group('rest', {})],
    llama.dims(model),
    num_old=num_old,
  )
  if model.lora:
    adapted = {f'layers/{name}' for name in model.lora.weights}
    both = sorted(adapted - set(partition.frozen_names()))
    if both:
      raise ValueError(
        f'{", ".join(both)}: both adapted (lora) and fully trained; freeze '
        'them, as --config.optim.groups.body.frozen=True, or adapt others.'
      )
  return partition


def param_dtypes(config, partition):
  """{name: dtype} of what is not float32: llama.shapes takes it."""
  dtype = config.optim.frozen_dtype
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f"optim.frozen_dtype={dtype!r} is unknown; take 'float32' or 'bfloat16'."
    )
  return dict.fromkeys(partition.frozen_names(), dtype)


def make_training(config, model, mesh, partition):
  """The jitted train step with the shapes and places of its arguments."""
  if config.optim.gradient_dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f'optim.gradient_dtype={config.optim.gradient_dtype!r} is unknown; take '
      "'float32' or 'bfloat16'."
    )
  tx = optim.make(
    partition,
    kind=config.optim.kind,
    first_moment_dtype=config.optim.first_moment_dtype,
    b1=config.optim.b1,
    b2=config.optim.b2,
    eps=config.optim.eps,
    clip_norm=config.optim.clip_norm,
  )
  shardings = step_lib.state_shardings(mesh, model, tx, partition)
  shapes = jax.eval_shape(
    lambda params: step_lib.init_state(params, tx, partition),
    llama.shapes(model, dtype=param_dtypes(config, partition)),
  )
  abstract_state = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
  abstract_batch = place.shapes(
    mesh, config.data.batch_size, config.data.seq_len
  )
  step = jax.jit(
    step_lib.make_train_step(
      model,
      execution=make_execution(config),
      tx=tx,
      partition=partition,
      mesh=mesh,
      lora_dropout=config.lora.dropout,
      z_loss=config.optim.z_loss,
      gradient_dtype=config.optim.gradient_dtype,
      seed=config.seed,
      num_microbatches=config.num_microbatches,
    ),
    donate_argnums=0,
    in_shardings=(
      shardings,
      jax.tree.map(lambda x: x.sharding, abstract_batch),
    ),
    out_shardings=(shardings, None),
  )
  return Training(
    model, mesh, abstract_state, abstract_batch, tx, partition, step
  )


def new_state(training, params):
  """The state of step 0 around `params`, which it takes over."""
  shardings = jax.tree.map(lambda x: x.sharding, training.abstract_state)

  def init_state(params):
    return step_lib.init_state(params, training.tx, training.partition)

  init_state = jax.jit(init_state, out_shardings=shardings, donate_argnums=0)
  return init_state(params)


def init_params(model, mesh, seed):
  """Random parameters, each created in its shards."""

  def init_params(key):
    return llama.init(model, key)

  places = sharding.shardings(mesh, llama.dims(model))
  return _jit_once(init_params, places)(jax.random.key(seed))


# -------------------------------------------------------------- evaluators


# Modules of lbe.evals, by their names.
EVALUATORS = (
  'perplexity',
  'multiple_choice',
  'exam',
  'generation',
  'response_quality',
  'code_switching',
  'lm_eval',
)


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """What is evaluated, and the steps at which it is."""

  name: str
  task: object
  every: int
  at_start: bool
  at_end: bool


def make_evaluators(config, prepared, tokenizer):
  """The evaluators of the config, their data read and checked.

  One without data (an empty path) is left out. `prepared` is None where no
  training data is there (evaluate). Raises ValueError, before anything is
  compiled, for what cannot be scored.
  """
  result = []
  for name, e in config.evals.items():
    fields = e.to_dict()
    kind = fields.pop('evaluator', None)
    if kind not in EVALUATORS:
      raise ValueError(
        f'evals.{name}.evaluator={kind!r} is unknown; take one of '
        f'{", ".join(EVALUATORS)}.'
      )
    schedule = {k: fields.pop(k) for k in ('every', 'at_start', 'at_end')}
    try:
      if kind == 'perplexity':
        task = _make_documents(config, prepared, name, **fields)
      else:
        module = importlib.import_module(f'lbe.evals.{kind}')
        task = module.make(**fields)
      if kind == 'multiple_choice' and task is not None:
        task.check(tokenizer)
    except ValueError as error:
      raise ValueError(f'evals.{name}: {error}') from error
    if task is not None:
      result.append(Evaluator(name=name, task=task, **schedule))
  whole = {e.name for e in result if e.at_start and e.at_end}
  for side, scores in config.forgetting.items():
    for score in scores:
      if score.split('/')[0] not in whole:
        raise ValueError(
          f'forgetting.{side} has {score!r}, but no evaluator of that name has '
          'data and runs at_start and at_end; those that do: '
          f'{", ".join(sorted(whole)) or "none"}.'
        )
  return result


def _make_documents(
  config, prepared, name, *, source, path, max_len, limit, **fields
):
  """The texts of a perplexity.Documents; None with neither source nor path."""
  if source and path:
    raise ValueError(
      f'it has both source={source!r} and path={path!r}; clear one of them.'
    )
  if source:
    if not prepared or source not in prepared:
      raise ValueError(
        f'source={source!r} is no source of this run; give path=FILE, or one '
        f'of {", ".join(prepared or ())}.'
      )
    texts = prepared[source].heldout_documents()
    if not texts:
      raise ValueError(
        f'it scores the held-out documents of {source}, which has none; set '
        f'data.sources.{source}.holdout.'
      )
  elif path:
    found = sources_lib.make(name, path=path, **fields)
    texts = [text for text, _ in sources_lib.documents(found)]
    order = order_lib.document_order(texts, seed=config.seed)
    texts = [texts[i] for i in order]
  else:
    return None  # an empty slot, to be filled on the command line
  max_len = max_len or config.data.seq_len
  if not isinstance(texts[0], str):
    max_len = config.data.seq_len  # a conversation is one window
  return perplexity.Documents(texts[: limit or None], max_len=max_len)


def as_evaluated(params, model, tokenizer, mesh, config):
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
