"""Sources, tokenized data, loader and budget of a run, from its config."""

import math
import pathlib
from collections.abc import Callable

import jax

from lbe.data import build
from lbe.data import cleaning
from lbe.data import loader as loader_lib
from lbe.data import sources as sources_lib
from lbe.data import tokenized
from lbe.mesh import hosts
from lbe.run import program
from lbe.vocab import tokenizers


def make_sources(config) -> dict[str, sources_lib.Source]:
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


def seed(config) -> int:
  """The seed of the order of documents."""
  return config.seed if config.data.seed is None else config.data.seed


def prepare(
  config,
  tokenizer: tokenizers.Tokenizer,
  workdir: str | pathlib.Path,
  *,
  elsewhere: Callable | None = None,
) -> dict[str, tokenized.Prepared]:
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
        seed=seed(config),
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


def make_loader(
  config,
  prepared: dict[str, tokenized.Prepared],
  tokenizer: tokenizers.Tokenizer,
) -> loader_lib.Loader:
  return loader_lib.Loader(
    prepared,
    {name: s.proportion for name, s in config.data.sources.items()},
    seq_len=config.data.seq_len,
    batch_size=config.data.batch_size,
    seed=config.seed,
    tokenizer=tokenizer,
    packed=[name for name, s in config.data.sources.items() if s.template],
  )


def count_steps(
  config, prepared: dict[str, tokenized.Prepared], loader: loader_lib.Loader
) -> int:
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


def check_learnt(config, loader: loader_lib.Loader, num_steps: int):
  """Raises ValueError where nothing of a source is learnt, or of the run."""
  for name, data in zip(loader.names, loader.data, strict=True):
    source = config.data.sources[name]
    if source.template:
      num_learnt, why = (
        data.num_learnt,
        (
          f'its records give every response the weight 0 (loss={source.loss!r})'
        ),
      )
    else:  # the first token of a document is nobody's target
      num_learnt = data.num_tokens - data.num_documents
      why = 'its documents are of one token'
    if source.proportion and not num_learnt:
      raise ValueError(
        f'data.sources.{name}: nothing is learnt of its {data.num_documents:,} '
        f'documents: {why}; mend them, or take the source out.'
      )
  num_rows = num_steps * loader.batch_size
  # The first row has learnt tokens nearly always.
  if not any(loader.row(i)['weights'].any() for i in range(num_rows)):
    raise ValueError(
      f'no target of the {num_rows:,} rows of this run is learnt: all of their '
      'responses have the weight 0; take a longer budget, or leave out the '
      'records of which nothing is learnt.'
    )


def check_epochs(config, loader: loader_lib.Loader, num_steps: int):
  """Raises ValueError where a source runs dry: seen more than `max_epochs`."""
  for name, epochs in loader.epochs(num_steps).items():
    most = config.data.sources[name].max_epochs
    if most and epochs > most:
      raise ValueError(
        f'data.sources.{name} would be seen {epochs:.2f} times in '
        f'{num_steps:,} steps, and max_epochs={most:g}: it runs dry. Lower its '
        'proportion or the budget, give it more text, or raise max_epochs.'
      )
