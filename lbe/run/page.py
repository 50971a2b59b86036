"""Pages that ask nothing of anybody: HTML with its own plots and tables.

Plots are uPlot's (pages/LICENSE.uPlot), which lies within each page. A plot is
{'title', 'x', 'y', 'along', 'log_x', 'curves': [{'name', 'points'}],
'crossings': [x]}; a point {'x', 'value', 'along'} and, where they are known,
'low' and 'high', 'seeds', and 'count'.
"""

import json
import pathlib

_HERE = pathlib.Path(__file__).parent / 'pages'


def render(template: str, *, plots: list[dict], **values) -> str:
  """The page of one of pages/*.html; all texts in it are escaped.

  Raises ValueError without jinja2.
  """
  try:
    import jinja2
    import markupsafe
  except ImportError as error:
    raise ValueError("a page needs jinja2: pip install 'lbe[study]'.") from (
      error
    )
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
  )
  # JSON that ends no script element, whatever a name in it is.
  data = json.dumps(plots)
  for character in '<>&':
    data = data.replace(character, f'\\u{ord(character):04x}')
  ours = {
    name.translate(str.maketrans('.', '_')): markupsafe.Markup(
      (_HERE / name).read_text('utf-8')
    )
    for name in ('page.css', 'page.js', 'uPlot.iife.min.js', 'uPlot.min.css')
  }
  return environment.get_template(template).render(
    plots=plots, plots_json=markupsafe.Markup(data), **ours, **values
  )
