"""Sources, tokenized data, loader and budget of a run, from its config."""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from lbe.data import build
from lbe.data import cleaning
from lbe.data import loader as loader_lib
from lbe.data import mixing
from lbe.data import order as order_lib
from lbe.data import overlaps
from lbe.data import sources as sources_lib
from lbe.data import tokenized
from lbe.evals import core
from lbe.exams import sentences
from lbe.mesh import hosts
from lbe.run import program
from lbe.run import progress
from lbe.text import files
from lbe.text import lines
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


def _cache_dir(config, workdir):
  return config.data.cache_dir or str(pathlib.Path(workdir) / 'data')


def texts_fingerprints(config, workdir: str | pathlib.Path) -> dict[str, str]:
  """{source: build.texts_fingerprint}: what a tokenizer is trained on."""
  cache_dir = _cache_dir(config, workdir)
  return {
    name: build.texts_fingerprint(source, cache_dir)
    for name, source in make_sources(config).items()
  }


def seed(config) -> int:
  """The seed of the order of documents; ValueError for a negative one."""
  if config.data.seed is None:
    return config.seed
  if config.data.seed < 0:
    raise ValueError(
      f'data.seed={config.data.seed} is negative; take one from 0 on.'
    )
  return config.data.seed


def prepare(
  config,
  tokenizer: tokenizers.Tokenizer,
  workdir: str | pathlib.Path,
  *,
  elsewhere: Callable | None = None,
  compare: bool = True,
) -> dict[str, tokenized.Prepared]:
  """Every source tokenized, by name; made once, by process 0.

  A budget in text that is less than an epoch leaves the first documents. Where
  asked to `compare`, they say what they share with texts that are scored.
  `elsewhere` is that of build.prepare. Hosts that do not see the folder of
  process 0 must have prepared their own: ValueError otherwise.
  """
  named = make_sources(config)
  for source in named.values():
    sources_lib.files(source)  # a wrong path is said before any work
  cache_dir = _cache_dir(config, workdir)

  first = jax.process_index() == 0

  def prepare_one(source, **how):
    with progress.doing(f'preparing {source.name}', quiet=not first):
      return build.prepare(
        source,
        tokenizer,
        cache_dir=cache_dir,
        num_workers=config.data.num_workers,
        bos=config.data.bos,
        eos=config.data.eos,
        seed=seed(config),
        seq_len=config.data.seq_len,
        elsewhere=elsewhere,
        in_text=bool(config.budget.documents or config.budget.bytes),
        **how,
      )

  def prepare_all(**how):
    return {name: prepare_one(x, **how) for name, x in named.items()}

  opened = None  # opening takes a look at every byte, so it is done once
  if hosts.blind_to(cache_dir, 'data'):
    opened = prepare_all(may_make=False)
    lacks = None in opened.values()
    lacking = [i for i, x in hosts.gather('data lacking', lacks).items() if x]
    if lacking:
      raise ValueError(
        f'{cache_dir} is not one folder that all hosts share, and there is no '
        f'tokenized data of this run on process {hosts.named(lacking)}. Let '
        'data.cache_dir be a folder that all mount, or run on each of these '
        f'hosts first:\n  {program.command("prepare")}'
      )
  elif first:
    opened = prepare_all()
  hosts.wait_for_others('data', limit_seconds=hosts.DAY)
  if opened is None:
    opened = prepare_all(may_make=False)
  prepared = _cut_to_budget(config, opened, tokenizer)
  # Asked of the config and the data: all hosts wait, or none.
  heldout = any(p.heldout is not None for p in prepared.values())
  if compare and (heldout or any(map(_reads_texts, config.evals.values()))):
    if first:
      prepared = _compared(config, named, prepared, pathlib.Path(cache_dir))
    hosts.wait_for_others('compared', limit_seconds=hosts.DAY)
  return prepared


def _cut_to_budget(config, prepared, tokenizer):
  """The sources with the documents alone that a budget in text takes.

  Below one epoch of what it counts: the first ones in the seeded order, so that
  another tokenizer takes the same. Of one source these are its documents or
  bytes; of several, and of those that are not counted, what their shares of the
  rows hold.
  """
  counted = _counted_names(config, prepared)
  amount = config.budget.documents or config.budget.bytes
  if not counted or not 0 < amount < _in_text(config, prepared, counted):
    return prepared
  result = dict(prepared)
  if len(counted) == 1:
    limit = 'max_documents' if config.budget.documents else 'max_bytes'
    (name,) = counted
    result[name] = prepared[name].first(**{limit: int(amount)})
  loader = make_loader(config, result, tokenizer)
  used = loader.rows_used(count_steps(config, result, loader))
  for i, name in enumerate(loader.names):
    if result[name].whole is None and 0 < used[i] < loader.num_rows[i]:
      tokens = used[i] * config.data.seq_len * loader.fill(name)
      result[name] = prepared[name].first(max_tokens=math.ceil(tokens))
  return result


def _counted_names(config, prepared):
  """Sources whose text a budget counts; none where it is unclear."""
  budget = config.budget.to_dict()
  of = budget.pop('of')
  if sum(map(bool, budget.values())) != 1 or of and of not in prepared:
    return []
  shares = {n: s.proportion for n, s in config.data.sources.items()}
  return [n for n in prepared if shares[n] and of in ('', n)]


def _in_text(config, prepared, names):
  """Documents or bytes of an epoch, whichever the budget counts."""
  data = [prepared[name].whole or prepared[name].train for name in names]
  if config.budget.documents:
    return sum(d.num_counted for d in data)
  return sum(d.counted_bytes for d in data)


def scored_texts(config, name: str, *, path: str, limit: int, **fields):
  """The first texts of a path in the seeded order, as an evaluator asks."""
  of_path = sources_lib.make(name, path=path, **fields)
  texts = [text for text, _ in sources_lib.documents(of_path)]
  order = order_lib.document_order(texts, seed=seed(config))
  return [texts[i] for i in order[: limit or None]]


def sentences_of(e) -> dict[str, list[str]]:
  """{code: sentences} that an evaluator reads of a folder with languages.

  Raises ValueError as lbe/exams/sentences.py does.
  """
  read = sentences.read(e.path, e.languages, split=e.get('split', ''))
  return {code: [text for _, text in own] for code, own in read.items()}


def _is_swap(e):
  return e.get('protocol') == 'pairs@swap'


def _reads_texts(e):
  """Whether an evaluator scores texts that it reads itself."""
  if not e.get('path') or e.get('source'):
    return False
  return e.get('evaluator') in ('parallel', 'perplexity') or _is_swap(e)


def _scored(config, name, e):
  """The texts of an evaluator that reads some itself; () for another one."""
  if not _reads_texts(e):
    return ()
  swap = _is_swap(e)
  if e.get('evaluator') == 'parallel' or swap and e.languages:
    return [text for own in sentences_of(e).values() for text in own]
  fields = {f: e[f] for f in ('path', 'kind', 'cut', 'heading', 'field')}
  # That of pairs counts them.
  limit = 0 if swap else e.limit
  return scored_texts(config, name, limit=limit, **fields)


def _compared(config, named, prepared, folder):
  """The sources with what they share with scored texts, as `shared`.

  Held-out documents stand under '', the texts of evaluators under their names
  at the first source. Found once, and kept in the folder.
  """
  sets, digests = {}, {}
  for name, e in config.evals.items():
    texts = _scored(config, name, e)
    if texts:
      sets[name, 'evals'] = texts
      digests[name] = core.data_hash(texts)
  heldout = [name for name, p in prepared.items() if p.heldout is not None]
  if not sets and not heldout:
    return prepared
  for name, p in prepared.items():
    learnt = hashlib.sha256(np.sort(p.train.hashes).tobytes()).hexdigest()
    digests[f'data.{name}'] = [p.fingerprint, learnt, named[name].proportion]
  facts = json.dumps(digests, sort_keys=True).encode()
  path = folder / f'shared-{hashlib.sha256(facts).hexdigest()[:16]}.jsonl'
  if not path.exists():
    with progress.doing('looking for scored text in what is trained on'):
      for name in heldout:
        hashes = prepared[name].heldout.hashes
        sets[name, 'heldout'] = list(overlaps.texts(named[name], hashes))
      training = (
        (name, text)
        for name, p in prepared.items()
        if named[name].proportion
        for text in overlaps.texts(named[name], p.train.hashes)
      )
      rows = [
        {
          'name': name,
          'kind': kind,
          'of': len(sets[name, kind]),
          'num': len(set().union(*found.values())),
          'with': {n: len(numbers) for n, numbers in found.items() if numbers},
        }
        for (name, kind), found in overlaps.find(sets, training).items()
      ]
    # Of a full disk nothing is left that a later run takes for no rows.
    files.write_whole(path, ''.join(map(lines.line, rows)))
  shared = {name: {} for name in prepared}
  for row in lines.rows(path):
    if row['kind'] == 'heldout':
      shared[row['name']][''] = row
    else:
      next(iter(shared.values()))[row['name']] = row
  return {
    name: dataclasses.replace(p, shared=shared[name])
    for name, p in prepared.items()
  }


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
  counted = _counted_names(config, prepared)
  if len(counted) == 1 and prepared[counted[0]].whole is not None:
    (name,) = counted  # it holds what the budget takes
    room, epochs = prepared[name].train.num_tokens / loader.fill(name), 1
  else:
    data = {
      name: prepared[name].whole or prepared[name].train for name in chosen
    }
    room = sum(d.num_tokens / loader.fill(name) for name, d in data.items())
    total = {
      'epochs': 1,
      'documents': sum(d.epoch_documents for d in data.values()),
      'bytes': sum(d.epoch_bytes for d in data.values()),
    }[unit]
    epochs = amount / total
  return math.ceil(epochs * room / share / tokens_per_step)


def check_learnt(
  config, loader: loader_lib.Loader, num_steps: int, *, begins: bool = True
):
  """Raises ValueError where nothing of a source is learnt, or of the run.

  A source too small for its share is no reason to stop a run that has begun.
  """
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
    if begins and source.proportion and not loader.rows_in_block(name):
      raise ValueError(
        f'data.sources.{name}: its share of the rows is '
        f'{loader.row_share(name):.2g}, and none of each {mixing.BLOCK:,} '
        'would be of it; raise its proportion, or join small sources to one.'
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
    p = loader.prepared[name]
    if p.whole is not None:  # of what the source has
      epochs *= p.train.num_tokens / p.whole.num_tokens
    if most and epochs > most:
      raise ValueError(
        f'data.sources.{name} would be seen {epochs:.2f} times in '
        f'{num_steps:,} steps, and max_epochs={most:g}: it runs dry. Lower its '
        'proportion or the budget, give it more text, or raise max_epochs.'
      )
