"""A study as one page that asks nothing of anybody: HTML with its own plots.

The plots are uPlot's (page/LICENSE.uPlot), which lies within the page.
"""

import collections
import json
import pathlib

from lbe.evals import core

_HERE = pathlib.Path(__file__).parent / 'page'
_MARKS = {core.LOWER: '↓', core.HIGHER: '↑', None: ''}


def render(study: dict, published: list[dict] = ()) -> str:
  """The page of what `summary.make` gives, and of published tables.

  All texts in it, of models too, are escaped. Raises ValueError without jinja2.
  """
  try:
    import jinja2
    import markupsafe
  except ImportError as error:
    raise ValueError(
      "a page needs jinja2: pip install 'lbe[study]'."
    ) from error
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
  )

  def ours(name):
    return markupsafe.Markup((_HERE / name).read_text('utf-8'))

  return environment.get_template('study.html').render(
    study=study,
    published=published,
    counts=collections.Counter(study['states'].values()),
    costs={c['name']: c['seconds'] for c in study['costs']['cells']},
    marks=_MARKS,
    plots_json=_script(study['plots']),
    css=ours('page.css'),
    js=ours('page.js'),
    uplot_js=ours('uPlot.iife.min.js'),
    uplot_css=ours('uPlot.min.css'),
  )


def _script(value):
  """JSON that ends no script element, whatever a name in it is."""
  import markupsafe

  text = json.dumps(value, ensure_ascii=True)
  for character in '<>&':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return markupsafe.Markup(text)
