"""The pages around the code: licence, citation, links, commands in Chinese."""

import hashlib
import re

import yaml

import lbe

import conftest

ROOT = conftest.ROOT
PAGES = [
  *sorted(ROOT.glob('*.md')),
  *sorted(ROOT.glob('docs/**/*.md')),
  *sorted(ROOT.glob('benchmarks/*.md')),
]


def commands(page):
  """The lines of a page's shell blocks that are no comments."""
  text = (ROOT / page).read_text(encoding='utf-8')
  blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
  lines = '\n'.join(blocks).splitlines()
  return [x for line in lines if (x := re.sub(r'(^|\s+)# .*', '', line))]


def test_the_licence_is_apaches_own_text():
  """Catches a licence that was shortened or changed."""
  text = (ROOT / 'LICENSE').read_bytes()
  assert hashlib.sha256(text).hexdigest() == (
    'cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30'
  )


def test_the_citation_is_of_this_version():
  """Catches a citation that stays behind, and YAML that does not load."""
  cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
  assert cited['version'] == lbe.__version__
  assert cited['cff-version'] == '1.2.0' and cited['message']
  assert f'## {lbe.__version__}' in (ROOT / 'CHANGELOG.md').read_text('utf-8')


def test_both_readmes_have_the_same_commands():
  """Catches a command that was mended in one language alone."""
  assert commands('README.zh.md') == commands('README.md')


def anchors(path):
  """The places in a page that a link may name, as GitHub makes them."""
  text = re.sub(r'```.*?```', '', path.read_text(encoding='utf-8'), flags=re.S)
  heads = re.findall(r'^#+ (.+)$', text, re.M)
  return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in heads}


def test_links_lead_somewhere():
  """Catches a link in any page to a file or a heading that is not there."""
  broken, seen = [], 0
  for page in PAGES:
    text = re.sub(r'```.*?```', '', page.read_text('utf-8'), flags=re.S)
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
      if re.match(r'https?:|mailto:', link):
        continue
      seen += 1
      name, _, anchor = link.partition('#')
      target = page.parent / name if name else page
      if not target.exists() or (anchor and anchor not in anchors(target)):
        broken.append(f'{page.relative_to(ROOT)}: {link}')
  assert not broken
  assert seen > 100
