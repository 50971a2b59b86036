"""Proof that a conversion is right: digests always, logits where possible.

Digests: the sha256 of every tensor of the Hugging Face folder against that of
the same tensor read back from the checkpoint. Logits: ours against those of
transformers on the same ids, in a process of its own.
"""

import importlib.util
import json
import math
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import psutil

from lbe.convert import hf_config
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import child
from lbe.run import progress
from lbe.text import files
from lbe.vocab import tokenizers

# Real sentences in several scripts; the ids of models without a tokenizer are
# drawn from the whole vocabulary instead.
TEXT = """\
The ferry left the harbour at six, and by seven the coast was a thin grey line.
Prices rose by 3.5% in March; in April they fell again, which nobody expected.
清晨的集市已经热闹起来，卖豆腐的老人一边收钱一边和熟客聊天。
如果明天下雨，我们就把会议改到星期四下午三点。
في الصباح يفتح الخباز دكانه قبل أن تشرق الشمس.
Bà tôi thường kể chuyện về dòng sông chảy qua làng.
def area(r):
    return 3.14159 * r ** 2
"""


def compare_digests(expected, got, not_read=()):
  """The record of two {tensor: sha256}; ValueError where they differ.

  `not_read` are the names of what lies in the source beside them.
  """
  differing = sorted(
    name
    for name in expected.keys() | got.keys()
    if expected.get(name) != got.get(name)
  )
  if differing:
    raise ValueError(
      f'{len(differing)} of {len(expected)} tensors differ after the round '
      f'trip, the first: {differing[0]}; the disk or memory is at fault, or '
      'this is a bug: do not use the result.'
    )
  record = {'tensors': len(expected), 'equal': len(expected)}
  return record | {'not_read': list(not_read)}


def sample_ids(c, tokenizer, *, length=128):
  """Ids [1, T] of TEXT, or drawn over the vocabulary without a tokenizer."""
  length = min(length, c.max_positions)
  if tokenizer is None:
    return np.random.default_rng(0).integers(c.vocab_size, size=(1, length))
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  ids = (bos + tokenizer.encode(TEXT))[:length]
  return np.asarray([ids], np.int64)


def logits_skipped_because(c, *, adapter=False):
  """Why `auto` leaves the logits out, or None where it compares them.

  With `adapter` theirs is a model of PEFT.

  Both models, ours and theirs, are held in float32; they may take half of
  the memory that is free.
  """
  for package in ('torch', 'transformers', *['peft'] * adapter):
    if importlib.util.find_spec(package) is None:
      return f"{package} is not installed (pip install 'lbe[hf]')"
  need = 2 * 4 * weights.num_params(c)
  free = psutil.virtual_memory().available
  if need > free / 2:
    return (
      f'both models need {need / 2**30:.1f} GiB in float32, more than half '
      f'of the {free / 2**30:.1f} GiB of free memory; --verify=logits '
      'compares them anyway'
    )
  return None


def compare_logits(checkpoint_dir, hf_dir, adapter_dir=''):
  """Runs the comparison in a fresh process; its record as a dictionary.

  With `adapter_dir`, theirs is the Hugging Face model under that adapter.
  """
  with tempfile.NamedTemporaryFile(suffix='.json') as f:
    paths = map(str, (checkpoint_dir, hf_dir, adapter_dir, f.name))
    status = child.run('lbe.convert.certificate', *paths, HF_HUB_OFFLINE='1')
    if status:
      raise ValueError(
        f'transformers could not compute the logits of {hf_dir} (status '
        f'{status}; its words stand above): the folder is broken for '
        'it, or memory ran out; --verify=digests leaves them out.'
      )
    return json.loads(pathlib.Path(f.name).read_text())


def _compare(checkpoint_dir, hf_dir, adapter_dir):
  import jax
  import jax.numpy as jnp
  import torch
  import transformers

  theirs = transformers.LlamaForCausalLM.from_pretrained(
    str(hf_dir), dtype=torch.float32
  ).eval()
  meta = checkpoint.read_meta(checkpoint_dir)
  c = architecture.Config.from_json(meta['model'])
  if adapter_dir:
    import peft

    if c.vocab_size != theirs.vocab_size:
      theirs.resize_token_embeddings(c.vocab_size, mean_resizing=False)
    theirs = peft.PeftModel.from_pretrained(theirs, adapter_dir).eval()
  found = tokenizers.find(adapter_dir or hf_dir) or tokenizers.find(hf_dir)
  ids_BT = sample_ids(c, tokenizers.load(found) if found else None)
  with torch.no_grad():
    theirs_BTV = theirs(torch.from_numpy(ids_BT)).logits.numpy()
  del theirs
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params = checkpoint.load_params(
    checkpoint_dir,
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
      weights.shapes(c),
    ),
  )

  @jax.jit
  def ours(params, ids_BT):
    x_BTD = forward.hidden(
      params,
      c,
      ids_BT,
      positions_BT=jnp.arange(ids_BT.shape[1])[None],
      segments_BT=jnp.ones(ids_BT.shape, jnp.int32),
      execution=forward.Execution(compute_dtype='float32'),
    )
    return forward.logits(params, c, x_BTD)

  ours_BTV = np.asarray(ours(params, ids_BT))[..., : c.vocab_size]
  return logits_record(ours_BTV, theirs_BTV)


def logits_record(ours_BTV, theirs_BTV):
  """Maximum |Δ|, mean KL(theirs ‖ ours) in nats, and argmax agreement."""

  def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

  a, b = log_softmax(theirs_BTV), log_softmax(ours_BTV)
  kl = (np.exp(a) * (a - b)).sum(-1).mean()
  same = theirs_BTV.argmax(-1) == ours_BTV.argmax(-1)
  return {
    'tokens': int(same.size),
    'max_abs_difference': float(np.abs(ours_BTV - theirs_BTV).max()),
    'largest_logit': float(np.abs(theirs_BTV).max()),
    'mean_kl': float(max(kl, 0.0)),
    'argmax_agreement': float(same.mean()),
  }


# Float32 sums in another order differ so much, relative to the largest logit;
# a wrong layout differs by the order of the logits themselves.
TOLERANCE = 1e-3


def check_logits(record):
  """Raises ValueError where the logits are not those of the same model."""
  bound = TOLERANCE * max(record['largest_logit'], 1.0)
  difference = record['max_abs_difference']
  if not math.isfinite(record['largest_logit']):
    raise ValueError(
      'the logits of transformers are not finite: the weights hold values '
      'that are NaN, infinite or far too large; take earlier ones.'
    )
  if not math.isfinite(difference) or difference > bound:
    raise ValueError(
      f'the logits differ from those of transformers by {difference:.3g} '
      f'(allowed: {bound:.3g}); the conversion is wrong: do not use it. The '
      'likely cause is a field of config.json that the two read otherwise '
      '(RoPE, eps, tying).'
    )


_NAME = 'certificate.json'


def is_of(folder: str | pathlib.Path, fingerprint: str) -> bool:
  """Whether a folder is finished and has the certificate of these weights."""
  folder = pathlib.Path(folder)
  if (folder / hf_config.UNFINISHED).exists():
    return False
  try:
    return files.read_json(folder / _NAME)['fingerprint'] == fingerprint
  except (OSError, ValueError, KeyError):
    return False


def export(source: str, target: pathlib.Path):
  """What a person would type: it reads the checkpoint, in its own process.

  Nothing where an earlier process was done. Raises ValueError where it fails.
  """
  if is_of(target, checkpoint.fingerprint(source)):
    return
  shutil.rmtree(target, ignore_errors=True)
  paths = f'--source={source}', f'--target={target}'
  if child.run('lbe.export_hf', *paths):
    raise ValueError('the export failed; why stands above.')


# Values of --verify, and what it says of itself.
VERIFY = ('auto', 'digests', 'logits')
VERIFY_HELP = (
  'digests: compare all tensors after a round trip; logits: also compare '
  "with transformers' logits; auto: logits where it is installed and both "
  'models fit in half of the free memory.'
)


def write(
  target: pathlib.Path,
  facts: dict,
  *,
  c: architecture.Config,
  checkpoint_dir: str | pathlib.Path,
  hf_dir: str | pathlib.Path,
  verify: str,
  adapter_dir: str | pathlib.Path = '',
  digests: tuple[dict, dict] | None = None,
  not_read: Sequence[str] = (),
  skipped: str | None = None,
):
  """Makes the certificate, prints it, and writes target/certificate.json.

  `facts` come first. `digests` and `not_read` are what compare_digests takes,
  the latter with the files that were not read; `skipped` says
  why the logits are left out, whatever `verify` asks for beyond digests.
  Raises ValueError where the conversion is wrong.
  """
  record = dict(facts)
  if digests is not None:
    record['digests'] = compare_digests(*digests, not_read)
  if verify == 'digests':
    skipped = '--verify=digests'
  elif verify == 'auto' and not skipped:
    skipped = logits_skipped_because(c, adapter=bool(adapter_dir))
  if skipped:
    record['logits'] = {'skipped': skipped}
  else:
    with progress.doing("comparing logits with transformers'"):
      record['logits'] = compare_logits(checkpoint_dir, hf_dir, adapter_dir)
    check_logits(record['logits'])
  text = json.dumps(record, indent=2)
  files.write_whole(target / _NAME, text)
  print(f'certificate ({target}/certificate.json):\n{text}')


if __name__ == '__main__':
  child.end_with_parent()
  pathlib.Path(sys.argv[4]).write_text(json.dumps(_compare(*sys.argv[1:4])))
