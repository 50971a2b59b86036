"""The pages as a site (mkdocs.yml), as mkdocs and a browser see it."""

import functools
import http.server
import logging
import re
import threading

import pytest

import browser
import conftest

pytest.importorskip('material', reason="needs pip install -e '.[docs]'")

PAGES = ['index.html', 'docs/cookbook.html', 'docs/compare.html']


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """The built site. What mkdocs warns of is an error: links, anchors, pages
  that the navigation lacks."""
  from mkdocs import config as config_lib
  from mkdocs.commands import build

  folder = tmp_path_factory.mktemp('site')
  log = logging.getLogger('mkdocs')
  log.setLevel(logging.WARNING)
  config = config_lib.load_config(
    str(conftest.ROOT / 'mkdocs.yml'), site_dir=str(folder)
  )
  config.plugins.on_startup(command='build', dirty=False)
  build.build(config)
  return folder


def test_every_page_is_there_and_asks_no_other_host(site):
  """Catches a page that is left out, a font or script from elsewhere."""
  pages = {path.relative_to(site).as_posix() for path in site.rglob('*.html')}
  for path in conftest.ROOT.glob('docs/*.md'):
    name = 'index' if path.stem == 'README' else path.stem
    assert f'docs/{name}.html' in pages
  assert {'index.html', 'GLOSSARY.html', 'LOG.html'} <= pages
  for page in pages:
    text = (site / page).read_text('utf-8')
    tags = re.findall(r'<(?:script|img|iframe|link)\b[^>]*>', text)
    assert not [x for x in tags if re.search(r'(src|href)="(https?:)?//', x)]


def test_no_list_became_a_paragraph(site):
  """Catches Markdown that a code host reads as a list and mkdocs does not."""
  lost = []
  for path in site.rglob('*.html'):
    text = re.sub(r'<pre.*?</pre>', '', path.read_text('utf-8'), flags=re.S)
    for kind, inside in re.findall(r'<(p|li)>(.*?)</\1>', text, re.S):
      if kind == 'p' and re.search(r'^([-*]|\d+\.|\|) ', inside, re.M):
        lost.append((path.name, inside[:80]))
  assert not lost


class Silent(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *args):
    pass


@pytest.mark.skipif(not browser.CHROMIUM, reason='no chromium on PATH')
def test_pages_fit_desktop_and_phone_without_an_error(site, tmp_path):
  """Catches a table that widens the page, a script that fails, a request."""
  handler = functools.partial(Silent, directory=site)
  with (
    http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server,
    browser.opened() as tab,
  ):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f'http://127.0.0.1:{server.server_port}/'
    for page in PAGES:
      for width, dark in ((1280, False), (390, True)):
        faults, asked = tab.look(base + page, width, dark=dark)
        assert not faults, (page, width, faults)
        assert all(x.startswith((base, 'data:')) for x in asked), asked
    tab.picture(tmp_path / 'page.png')
    server.shutdown()
  assert (tmp_path / 'page.png').stat().st_size > 5_000
