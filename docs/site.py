"""The files of the site (mkdocs.yml): they lie in it as in the repository.

So the links of a page are right in both, also those that leave docs/.
"""

import pathlib
import re

from mkdocs.structure import files as files_lib

PAGES = ('*.md', 'docs/**/*.md', 'benchmarks/*.md', 'docs/site.css')


def _linked(page):
  """The files that a page links to or shows."""
  text = re.sub(r'```.*?```', '', page.read_text('utf-8'), flags=re.S)
  for link in re.findall(r'\]\(([^)\s#]+)', text):
    path = (page.parent / link).resolve()
    if ':' not in link and path.is_file():
      yield path


def on_files(files, config):
  """The repository's pages, and what they link to, in place of docs_dir's."""
  for file in list(files):
    if file.src_dir == config.docs_dir:
      files.remove(file)
  root = pathlib.Path(config.config_file_path).parent.resolve()
  pages = {path for pattern in PAGES for path in root.glob(pattern)}
  for path in sorted(pages.union(*map(_linked, pages))):
    name = path.relative_to(root).as_posix()
    file = files_lib.File.generated(config, name, abs_src_path=str(path))
    if path.suffix == '.md' and path.with_suffix('.html').exists():
      # Its own page would take the name of the one beside it.
      file.dest_uri = file.url = f'{name}.html'
    files.append(file)
  return files
