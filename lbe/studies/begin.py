"""A study's folder before any work: its files, and what has changed since."""

import contextlib
import fcntl
import pathlib
import shutil
from collections.abc import Callable

from lbe.convert import stored
from lbe.run import checkpoint
from lbe.studies import folder
from lbe.studies import frozen
from lbe.studies import grid
from lbe.studies import verdicts
from lbe.studies import work
from lbe.text import hub
from lbe.text import lines


def begin(
  study: pathlib.Path,
  asked: dict,
  *,
  wanted: set[str],
  accept: bool,
  say: Callable[[str], None],
) -> dict:
  """study.json of what is asked, in agreement with what is there.

  Cells that are not `wanted`, nor were there before, are left out: nothing that
  they lack is asked for.

  `asked` has `name`, `files`, `evals`, `cells` and `claims`, and maybe
  `scoring`, fields of a config by which evaluators compute. Cells and files
  may be added. A cell that has begun by other facts is refused with what
  differs or, where asked to `accept` it, kept as it is, which is written down.
  So is one that somebody works on at the moment.
  Raises ValueError for that, and for all else that cannot be.
  """
  cells = grid.order(asked['cells'])
  _check_claims(asked)
  _check_owner(study, asked['name'])
  study.mkdir(parents=True, exist_ok=True)
  # Workers of an array begin at the same moment; the first one makes all.
  # Whoever takes a cell looks into study.json, so cells that begin anew are
  # held until it is written.
  with open(study / 'lock', 'w') as lock, contextlib.ExitStack() as held:
    fcntl.flock(lock, fcntl.LOCK_EX)
    old = folder.read(study) or {
      'files': {},
      'texts': {},
      'cells': [],
      'accepted': [],
    }
    frozen.check(study, old['files'])
    files, texts = _files(study, old, asked['files'], say)
    cells = [c for c in cells if c['name'] in wanted]
    cells = grid.identify(cells, files, _weights(cells))
    accepted = list(old['accepted'])
    cells = _compared(study, old, cells, accepted, held, accept=accept, say=say)
    names = {c['name'] for c in cells}
    # What an earlier call asked for stays.
    cells = grid.order(
      [*(c for c in old['cells'] if c['name'] not in names), *cells]
    )
    scoring = asked.get('scoring', {})
    dtype = scoring.get('execution', {}).get('compute_dtype', '')
    record = {
      'study': asked['name'],
      'files': files,
      'texts': texts,
      'config': scoring,
      'evals': grid.identify_evals(asked['evals'], files, dtype),
      'cells': cells,
      'claims': asked['claims'],
      'plots': asked.get('plots', []),
      'accepted': accepted,
    }
    folder.write(study, record)
  return record


def _check_owner(study, name):
  old = folder.read(study)
  if old is not None and old['study'] != name:
    raise ValueError(
      f'--workdir={study} belongs to the study {old["study"]!r}, and this one '
      f'is {name!r}; take another --workdir.'
    )
  if old is None and (study / 'config.json').exists():
    raise ValueError(
      f'--workdir={study} holds a run; a study has a folder of its own, take '
      'another --workdir.'
    )


def _check_claims(asked):
  verdicts.check(asked['claims'], asked['evals'])
  for claim in asked['claims']:
    told = f'claim {claim["name"]!r}'
    for term in claim['terms']:
      if not verdicts.cells_of(asked['cells'], term['cells']):
        raise ValueError(
          f'{told}: no cell of this study has the axes {term["cells"]}.'
        )


def _files(study, old, asked, say):
  """(facts of all files, how each was asked for); what is new is made."""
  files, texts = dict(old['files']), dict(old['texts'])
  for name, how in asked.items():
    if name in texts:
      if texts[name] != how:
        raise ValueError(
          f'files.{name} was made by {lines.dumps(texts[name])}, and is asked '
          f'for by {lines.dumps(how)}: cells have been trained and scored on '
          'it. Set it back, add a file of another name, or begin the study in '
          'another --workdir.'
        )
      continue
    say(f'making the texts of {name}')
    made = frozen.make(study, name, **how)
    skipped = next(iter(made.values()))['skipped']
    if skipped:
      say(f'{len(skipped)} records are left out, the first: {skipped[0]}')
    files |= made
    texts[name] = how
  return files, texts


def _weights(cells):
  """{cell: fingerprint} of models from elsewhere; ValueError for none there."""
  result = {}
  for cell in cells:
    if cell['kind'] == 'model':
      path = cell['config']['path']
      if hub.is_name(path) and hub.pinned(path) != path:
        raise ValueError(
          f'cell {cell["name"]!r}: {path} may be another model tomorrow; give '
          f'{hub.pinned(path)}.'
        )
      if not (hub.is_name(path) or path and pathlib.Path(path).exists()):
        raise ValueError(
          f'cell {cell["name"]!r}: there is no model at {path!r}; give the '
          'path of a checkpoint or a Hugging Face folder, or choose cells that '
          'do not need it with --only.'
        )
      result[cell['name']] = stored.open_model(path).fingerprint()
  return result


def _compared(study, old, cells, accepted, held, *, accept, say):
  """The cells as they count: accepted ones as they were.

  `held` gets the locks of those that begin anew.
  """
  before = {cell['name']: cell for cell in old['cells']}
  result, refused = [], []
  for cell in cells:
    name = cell['name']
    was = before.get(name, cell)
    made = folder.read_cell(study, name).get('identity', was['identity'])
    if was['identity'] == made == cell['identity']:
      result.append(cell)
      continue
    lock = held.enter_context(folder.locked(study, name))
    if lock is not None and not _has_begun(study, name):
      _empty(folder.cell_folder(study, name))
      result.append(cell)
      continue
    if made == was['identity']:
      differs = grid.differences(was, cell) or ['what it begins from']
    else:
      differs = ['made by another version than the one of study.json']
      was = {**was, 'identity': made}
    if accept:
      note = {'cell': name, 'differences': differs, 'time': work.now()}
      note['asked'] = cell['identity']
      if not any(x.get('asked') == cell['identity'] for x in accepted):
        accepted.append(note)
      say(f'accepted: {name} stays as it was: {"; ".join(differs)}')
      result.append({**was, 'axes': cell['axes'], 'tokens': cell['tokens']})
    else:
      if lock is None:
        differs.append('somebody works on it at the moment')
      refused.append(f'{name}: ' + '\n  '.join(differs))
  if refused:
    raise ValueError(
      f'{study} has results by another version of this study:\n'
      + '\n'.join(refused)
      + '\nSet these back, give such cells other names, or pass --accept: then '
      'they count as they are, and study.json says so.'
    )
  return result


def _empty(path):
  """Takes away what a cell's folder has, but for the lock, which is held."""
  for it in path.iterdir():
    if it.is_dir() and not it.is_symlink():
      shutil.rmtree(it, ignore_errors=True)
    elif it.name != 'lock':
      it.unlink(missing_ok=True)


def _has_begun(study, name):
  """Whether something is lost if the cell begins anew."""
  if folder.read_cell(study, name).get('state') == folder.DONE:
    return True
  return bool(checkpoint.steps(folder.cell_folder(study, name)))
