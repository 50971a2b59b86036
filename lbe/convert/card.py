"""The model card of an export: what is known of it, as the Hub reads it."""

import pathlib

from lbe.text import hub
from lbe.text import language_table
from lbe.text import lines
from lbe.text import tables


def write(target: pathlib.Path, checkpoint_dir, meta: dict, *, adapter: bool):
  """target/README.md, unless one is there already.

  `meta` is the checkpoint's own. Folders are named without their path, which
  is nobody's business; licence and contact are left to who publishes.
  """
  path = target / 'README.md'
  if path.exists():
    print(f'notice: {path} is kept; no model card was written.')
    return
  scores = _scores(pathlib.Path(str(checkpoint_dir)), meta['step'])
  path.write_text(text(meta, scores, adapter=adapter), encoding='utf-8')


def shown(path) -> str:
  """What a folder is called, and not where it lies: of a step, RUN/STEP."""
  path = pathlib.Path(path).resolve()
  if path.parent.name == 'checkpoints':
    return f'{path.parent.parent.name}/{path.name}'
  return path.name


def text(meta: dict, scores: list[dict], *, adapter: bool) -> str:
  """The card, of a checkpoint's `meta` and rows of results.jsonl."""
  facts = meta['config']
  config = facts['config'] if facts else {}
  sources = config.get('data', {}).get('sources', {})
  known = [name for name in sources if name in language_table.LANGUAGES]
  head = ['---']
  if known:
    head += ['language:', *(f'- {name}' for name in known)]
  base = (meta['source'] or {}).get('base')
  name = f'`{shown(base)}`' if base else None
  where = ' (That is a folder: say where it comes from.)' if base else ''
  if base and hub.is_name(base):
    repo, commit = hub.split(base)
    head += [f'base_model: {repo}']
    name, where = f'[{repo}](https://huggingface.co/{repo}/tree/{commit})', ''
  head += [f'library_name: {"peft" if adapter else "transformers"}']
  head += ['pipeline_tag: text-generation', 'tags:', '- lbe', '---']
  parts = ['\n'.join(head), '# Model card']
  what = 'Adapters for a LLaMA' if adapter else 'A LLaMA'
  parts.append(
    f'{what}{f", trained on from {name}" if name else ""}. Made by lbe.' + where
  )
  parts.append(
    '**Licence: to be filled in by who publishes it.** That of the base and '
    'those of the texts count.'
  )
  if facts:
    parts += ['## Training', _training(meta, facts, config)]
    parts += [_sources(sources)]
    templates = sorted({x['template'] for x in sources.values()} - {''})
    if templates:
      parts.append(
        f'Conversations were written as {", ".join(map(_shown, templates))}; '
        'where one format was, it is the `chat_template` of the tokenizer.'
      )
  if scores:
    parts += ['## Scores', _table(scores)]
  parts.append(
    'How the conversion was proved is in `certificate.json` where it lies '
    'beside this file.'
  )
  return '\n\n'.join(parts) + '\n'


def _shown(template):
  return f'`{pathlib.Path(template).name}`'


def _training(meta, facts, config):
  data, optim = config['data'], config['optim']
  tokens = meta['step'] * data['batch_size'] * data['seq_len']
  way = (
    'adapters (LoRA)' if config['lora']['params'] else 'all that is not frozen'
  )
  return (
    f'{meta["step"]:,} of {facts["num_steps"]:,} steps of {data["batch_size"]} '
    f'rows of {data["seq_len"]:,} tokens ({tokens:,} with padding); '
    f'{optim["kind"]}, peak rate {optim["peak_lr"]:g}, {optim["schedule"]}; '
    f'trained: {way}.'
  )


def _sources(sources):
  rows = [
    [
      name,
      f'{x["proportion"]:.0%}',
      'conversations' if x['template'] else 'text',
    ]
    for name, x in sources.items()
  ]
  return tables.markdown(['source', 'share of tokens', 'kind'], 'lrl', rows)


def _scores(checkpoint_dir, step):
  """The rows with an interval of the run's own scores at this step."""
  file = checkpoint_dir.parent.parent / 'results.jsonl'
  if checkpoint_dir.parent.name != 'checkpoints' or not file.is_file():
    return []
  found = {
    (row['evaluator'], row['name']): row
    for row in lines.rows(file)
    if row.get('step') == step and row.get('interval95')
  }
  return list(found.values())


def _table(scores):
  rows = [
    [
      x['evaluator'],
      x['protocol'],
      x['name'],
      f'{x["value"]:.4f}',
      ' to '.join(f'{end:.4f}' for end in x['interval95']),
      f'{x["count"]:,}',
    ]
    for x in scores
    if x['value'] is not None
  ]
  heads = ['evaluator', 'protocol', 'score', 'value', '95%', 'N']
  return tables.markdown(heads, 'lllrlr', rows)
