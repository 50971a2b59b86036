"""Models of the Hugging Face Hub by name: hf:OWNER/NAME, or ...@REVISION.

What is fetched lies in the cache that huggingface_hub and transformers share.
Of a repository come tensors as safetensors, JSON, tokenizers and chat
templates: no pickles and no code. Tokens are huggingface_hub's own affair.
"""

import contextlib
import functools
import pathlib
import re

PREFIX = 'hf:'
_NAME = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*', re.ASCII)
_COMMIT = re.compile('[0-9a-f]{40}')
_BESIDE = (
  '*.json',
  'tokenizer.model',
  'chat_template.jinja',
  'additional_chat_templates/*.jinja',
)
# What a model or an adapter is read from: left behind by an earlier one, it
# would be read with the new one, or in its place.
_OF_A_MODEL = (
  '*.safetensors',
  '*.safetensors.index.json',
  'pytorch_model*',
  *('config.json', 'generation_config.json'),
  *('adapter_config.json', 'adapter_model.*'),
  *('tokenizer.model', 'tokenizer.json', 'tokenizer_config.json'),
  *('special_tokens_map.json', 'added_tokens.json'),
  *('vocab.json', 'merges.txt'),
  *('chat_template.jinja', 'chat_template.json'),
  'additional_chat_templates/*',
  *('certificate.json', 'checksums*.json'),
)
# Other models in folders of their own, and Meta's or Mistral's second copy.
_NOT = ('*/*.json', '*/*.safetensors', 'consolidated*')

Folder = str | pathlib.Path


def is_name(path: Folder) -> bool:
  return str(path).startswith(PREFIX)


def local(path: Folder, *, weights: bool = True) -> Folder:
  """The folder that a name stands for, fetched; any other path as it is.

  Without `weights` all but the tensors is fetched. A process that asks twice
  gets the same commit. Raises ValueError for a name that is none, a
  repository that is not there, closed, or out of reach, and one without
  safetensors; ImportError without huggingface_hub.
  """
  if not is_name(path):
    return path
  repo, revision = _parse(path)
  commit = _commit(repo, revision)
  if not weights:
    return _fetch(repo, commit, _BESIDE)
  folder = _fetch(repo, commit, (*_BESIDE, '*.safetensors'))
  if not next(folder.glob('*.safetensors'), None):
    raise ValueError(
      f'{path} has no safetensors, and nothing else is fetched: pickles can '
      'run code. Take a repository that has them (many have a branch: '
      f'{PREFIX}{repo}@refs/pr/NUMBER), or download it yourself and give the '
      'folder.'
    )
  return folder


def pinned(path: Folder, recorded: str | None = None) -> Folder:
  """The name with its commit, as 'hf:OWNER/NAME@COMMIT'; other paths as is.

  What was `recorded` stands for a name without a revision: nothing is asked.
  Raises as `local`.
  """
  if not is_name(path):
    return path
  repo, revision = _parse(path)
  if not revision and recorded and is_name(recorded):
    if _parse(recorded)[0] == repo:
      return recorded
  return f'{PREFIX}{repo}@{_commit(repo, revision)}'


def split(path: Folder) -> tuple[str, str | None]:
  """(name or path as other libraries have it, commit or None)."""
  return _parse(path) if is_name(path) else (str(path), None)


def push(folder: pathlib.Path, repo: str, *, public: bool) -> str:
  """Uploads a folder as one commit; a line that says where it is.

  What lies there of an earlier model or adapter and is not written anew goes;
  other files stay. Raises as `check_push`.
  """
  hub = _hub()
  with _told(repo):
    api = hub.HfApi()
    api.create_repo(repo, private=not public, exist_ok=True)
    done = api.upload_folder(
      repo_id=repo,
      folder_path=folder,
      commit_message='A model by lbe',
      delete_patterns=list(_OF_A_MODEL),
    )
    kind = 'private' if api.model_info(repo).private else 'public'
  return f'pushed to {api.endpoint}/{repo} ({kind}), commit {done.oid}'


def check_push(repo: str, *, public: bool):
  """Raises ValueError where `push` would be refused; nothing is written."""
  if is_name(repo) or not _is_repo(repo):
    raise ValueError(
      f'--push={repo!r} is no name of a repository; give OWNER/NAME.'
    )
  hub = _hub()
  if not hub.get_token():
    raise ValueError(
      f'--push={repo}: there is no token to write with; make one at '
      f'{hub.constants.ENDPOINT}/settings/tokens, then HF_TOKEN=... or '
      '`hf auth login`.'
    )
  api = hub.HfApi()
  with _told(repo):
    api.whoami()
    # No one sees a private repository who is not let in: nor is it there yet.
    with contextlib.suppress(hub.errors.RepositoryNotFoundError):
      if not api.model_info(repo).private and not public:
        raise ValueError(
          f'--push={repo} is public already; add --public to push to it, or '
          'give another name.'
        )


def _is_repo(repo):
  # The hub's own rules beside the letters.
  return (
    _NAME.fullmatch(repo)
    and len(repo) <= 96
    and not re.search(r'--|\.\.|[.-](/|$)|(^|/)[-.]|\.git$', repo)
  )


def _parse(path):
  repo, _, revision = str(path).removeprefix(PREFIX).partition('@')
  if not _is_repo(repo) or (not revision and str(path).endswith('@')):
    raise ValueError(
      f'{str(path)!r} is no name on the hub; give hf:OWNER/NAME, or '
      'hf:OWNER/NAME@REVISION (a branch, a tag or a commit).'
    )
  return repo, revision or None


def _hub():
  try:
    import huggingface_hub.constants
    import huggingface_hub.errors
  except ImportError as error:
    raise ImportError(
      "hf: and --push want huggingface_hub: pip install 'lbe[hub]'."
    ) from error
  return huggingface_hub


@functools.lru_cache
def _commit(repo, revision):
  if revision and _COMMIT.fullmatch(revision):
    return revision
  return _fetch(repo, revision, _BESIDE).name


def _fetch(repo, revision, patterns):
  hub = _hub()
  name = f'{PREFIX}{repo}' + (f'@{revision}' if revision else '')
  with _told(name):
    return pathlib.Path(
      hub.snapshot_download(
        repo,
        revision=revision,
        allow_patterns=list(patterns),
        ignore_patterns=list(_NOT),
      )
    )


@contextlib.contextmanager
def _told(name):
  """The hub's errors in our words: value, rule and way out."""
  hub = _hub()
  errors, site = hub.errors, hub.constants.ENDPOINT
  repo = name.removeprefix(PREFIX).partition('@')[0]
  try:
    yield
  except errors.GatedRepoError as error:
    raise ValueError(
      f'{name} is gated: its owner lets in who asks. Ask at {site}/{repo}, and '
      'give that account (HF_TOKEN=... or `hf auth login`).'
    ) from error
  except errors.RepositoryNotFoundError as error:
    raise ValueError(
      f'{name}: {site} has no such repository, or a private one that this '
      'account is not let into; look at the spelling, or give another account '
      '(HF_TOKEN=... or `hf auth login`).'
    ) from error
  except errors.RevisionNotFoundError as error:
    raise ValueError(
      f'{name}: the repository has no such revision; give a branch, a tag or '
      f'a commit that {site}/{repo}/commits/main shows.'
    ) from error
  except errors.LocalEntryNotFoundError as error:
    why = f'{site} is not reached'
    if hub.constants.is_offline_mode():
      why = 'HF_HUB_OFFLINE forbids to ask for it'
    raise ValueError(
      f'{name} is not (wholly) in the cache {hub.constants.HF_HUB_CACHE}, and '
      f'{why}; fetch it where there is a network (hf download {repo}) and '
      'bring the cache, or give a folder.'
    ) from error
  except errors.HfHubHTTPError as error:
    status = error.response.status_code
    denied = '; the token may not do that' if status in (401, 403) else ''
    raise ValueError(
      f'{name}: {site} answers {status}{denied}; try again, or give a folder.'
    ) from error
