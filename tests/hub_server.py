"""A Hugging Face Hub on the loopback address, of folders of this machine."""

import base64
import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse

GATED, SECRET = 'gated', 'hf_a_token_that_nobody_may_see'


class Server(http.server.ThreadingHTTPServer):
  """`repos` are {'OWNER/NAME': {revision: {path: bytes}}}; 'main' is one.

  Repositories whose name begins with GATED want the token SECRET. `asked` are
  (method, path, authorization) of requests; `public` names that are not
  private.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.repos, self.asked, self.public = {}, [], set()

  @property
  def url(self):
    return f'http://127.0.0.1:{self.server_port}'

  def put(self, repo: str, folder: pathlib.Path, **more: bytes) -> str:
    """Makes a folder, and more files, what `main` is; its commit."""
    found = {
      str(path.relative_to(folder)): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file()
    }
    return self.commit(repo, found | more)

  def commit(self, repo, found):
    told = repr(sorted(found.items())).encode()
    commit = hashlib.sha1(told).hexdigest()
    versions = self.repos.setdefault(repo, {})
    versions[commit] = versions['main'] = found
    versions['main_is'] = commit
    return commit


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def _say(self, status, told=None, **headers):
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(body)

  def _refuse(self, status, code):
    self._say(status, {'error': code}, X_Error_Code=code)

  def _answer(self):
    server = self.server
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    allowed = self.headers.get('Authorization')
    server.asked.append((self.command, path, allowed))
    body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
    parts = path.strip('/').split('/')
    if parts == ['api', 'whoami-v2']:
      return self._say(200, {'name': 'me', 'type': 'user', 'orgs': []})
    if parts == ['api', 'validate-yaml']:
      return self._say(200, {'errors': [], 'warnings': []})
    if parts == ['api', 'repos', 'create']:
      return self._create(json.loads(body))
    api = parts[:2] == ['api', 'models']
    parts = parts[2:] if api else parts
    repo, rest = '/'.join(parts[:2]), parts[2:]
    if repo not in server.repos:
      return self._refuse(401 if allowed is None else 404, 'RepoNotFound')
    versions = server.repos[repo]
    if api and rest[:1] == ['preupload']:
      named = [f['path'] for f in json.loads(body)['files']]
      files = [
        {'path': name, 'uploadMode': 'regular', 'shouldIgnore': False}
        for name in named
      ]
      return self._say(200, {'files': files})
    if api and rest[:1] == ['commit']:
      return self._commit(repo, body)
    revision = rest[1] if len(rest) > 1 else 'main'
    if revision not in versions:
      return self._refuse(404, 'RevisionNotFound')
    found = versions[revision]
    commit = versions['main_is'] if revision == 'main' else revision
    if api and rest[:1] in ([], ['revision']):
      told = {'id': repo, 'sha': commit, 'private': repo not in server.public}
      told['siblings'] = [{'rfilename': name} for name in found]
      return self._say(200, told)
    if api and rest[:1] == ['tree']:
      return self._say(
        200,
        [
          {'type': 'file', 'path': name, 'size': len(data), 'oid': _oid(data)}
          for name, data in found.items()
        ],
      )
    name = '/'.join(rest[2:])
    if parts[1].startswith(GATED) and allowed != f'Bearer {SECRET}':
      return self._refuse(401, 'GatedRepo')
    if name not in found:
      return self._refuse(404, 'EntryNotFound')
    oid = f'"{_oid(found[name])}"'
    return self._say(200, found[name], ETag=oid, X_Repo_Commit=commit)

  do_GET = do_HEAD = do_POST = _answer

  def _create(self, asked):
    repo = f'{asked.get("organization") or "me"}/{asked["name"]}'
    there = repo in self.server.repos
    if not there:
      self.server.commit(repo, {})
      if not (asked.get('private') or asked.get('visibility') == 'private'):
        self.server.public.add(repo)
    url = f'{self.server.url}/{repo}'
    return self._say(409 if there else 200, {'url': url, 'name': repo})

  def _commit(self, repo, body):
    found = dict(self.server.repos[repo]['main'])
    for line in body.decode().splitlines():
      item = json.loads(line)
      value = item['value']
      if item['key'] == 'file':
        found[value['path']] = base64.b64decode(value['content'])
      if item['key'] == 'deletedFile':
        found.pop(value['path'], None)
    commit = self.server.commit(repo, found)
    url = f'{self.server.url}/{repo}/commit/{commit}'
    return self._say(200, {'commitOid': commit, 'commitUrl': url})


def _oid(data):
  return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def running():
  server = Server()
  thread = threading.Thread(target=server.serve_forever, args=(0.02,))
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
