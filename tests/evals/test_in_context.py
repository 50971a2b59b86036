"""Canaries of learning from context: what they hold, and when they warn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2

from lbe.convert import hf
from lbe.convert import hf_config
from lbe.evals import core
from lbe.evals import in_context
from lbe.evals import schedule
from lbe.inference import model as model_lib
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import weights as weights_lib
from lbe.vocab import continued
from lbe.vocab import sentencepiece
from lbe.vocab import tokenizers

FP32 = forward.Execution(compute_dtype='float32', scan=False)


@pytest.fixture(scope='module')
def stories(test_data):
  folder = test_data / 'ckpt_stories260K' / 'hf'
  c, _ = hf_config.read_config(folder)
  params = hf.load_params(folder, c, dtype='float32')
  tokenizer = tokenizers.load(folder)

  def model(mesh=(1, 1), scale=1.0):
    made = sharding.make_mesh(
      dict(data=mesh[0], fsdp=mesh[1], context=1, tensor=1),
      devices=jax.devices()[: mesh[0] * mesh[1]],
    )
    placed = jax.device_put(
      jax.tree.map(lambda x: scale * jnp.asarray(x), params),
      sharding.shardings(made, weights_lib.dims(c)),
    )
    return model_lib.Model(placed, c, tokenizer, made, FP32, 8, c.max_positions)

  return model


def canaries(tokenizer, *, results=None, **changes):
  fields = dict(
    sequences=2,
    length=64,
    seed=0,
    num_pieces=tokenizer.vocab_size,
    warn_fall=0.1,
    max_positions=512,
  )
  return in_context.make(
    tokenizer=tokenizer, results=results, **fields | changes
  )


def rows_of(task, length=16):
  ids, twice = in_context.TASKS[task](
    np.arange(100, 200), length, np.random.default_rng(0)
  )
  assert len(ids) == length
  assert all(a < b and ids[a] == ids[b] for a, b in twice)
  return ids, twice


def test_a_sequence_is_copied_whole():
  ids, twice = rows_of('copy')
  assert len(set(ids[:8])) == 8 and (ids[:8] == ids[8:]).all()
  assert twice == [(i, i + 8) for i in range(8)]


def test_a_value_stands_behind_its_key_in_another_order():
  """In the same order a model could do it by copying."""
  ids, twice = rows_of('lookup')
  pairs = ids.reshape(-1, 2).tolist()
  assert sorted(pairs[:4]) == sorted(pairs[4:]) and pairs[:4] != pairs[4:]
  assert len(set(ids.tolist())) == 8
  assert [b for _, b in twice] == [9, 11, 13, 15]
  assert all(ids[a - 1] == ids[b - 1] for a, b in twice)


def test_labels_take_turns_behind_pieces_that_are_new():
  ids, twice = rows_of('labels', 24)
  new, turns = ids[::2], ids[1::2]
  assert (turns[4:] == turns[:-4]).all() and len(set(turns)) == 4
  assert len(set(new) | set(turns)) == 12 + 4
  assert [b for _, b in twice] == list(range(9, 24, 2))
  assert {a for a, _ in twice} == {1, 3, 5, 7}


def test_they_are_made_of_pieces_that_texts_have(stories):
  """Bytes, control strings and pieces that no text has are in no training."""
  base = stories().tokenizer
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(base.to_bytes())
  unused = [i for i, p in enumerate(proto.pieces) if p.type == 1][10:30]
  for i in unused:
    proto.pieces[i].type = proto.pieces[i].UNUSED
  found = {
    name: sorted(in_context.ordinary(tokenizer, 512, seed=0))
    for name, tokenizer in (
      ('base', base),
      ('unused', sentencepiece.SentencePiece(proto.SerializeToString())),
    )
  }
  kinds = {proto.pieces[i].type for i in found['unused']}
  assert kinds == {proto.pieces[0].NORMAL}
  pieces = [base.piece(i) for i in found['base']]
  assert '▁Once' in pieces and not {'▁', '.', ',', '<s>', '<0x0A>'} & {*pieces}
  lost = set(found['base']) - set(found['unused'])
  assert lost and lost <= set(unused)


def test_an_extended_vocabulary_sees_the_same_text(stories):
  """With new pieces in it, its canary would not be that of the base."""
  base = stories().tokenizer
  texts = ['我们今天去公园看花，他们也去了。'] * 5
  extended = continued.extend(
    base, texts, num_pieces=20, progress=False
  ).tokenizer
  assert extended.vocab_size > base.vocab_size
  same = canaries(extended, num_pieces=base.vocab_size)
  assert (same.rows == canaries(base).rows).all()
  others = canaries(extended), canaries(base, seed=1)
  assert not any((other.rows == same.rows).all() for other in others)


@pytest.mark.parametrize('mesh', [(1, 1), (2, 4)])
def test_the_scores_are_those_of_transformers(stories, test_data, mesh):
  """Places off by one, rows of padding, or nats of another model."""
  import torch
  import transformers

  model = stories(mesh)
  task = canaries(model.tokenizer)
  found = task.evaluate(model, name='x', step=None).metrics
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    test_data / 'ckpt_stories260K' / 'hf'
  )
  rows = torch.tensor(task.rows.astype(np.int64))
  with torch.no_grad():
    logprobs = theirs(rows[:, :-1]).logits.log_softmax(-1)
  nats = -logprobs.gather(2, rows[:, 1:, None])[..., 0].numpy()
  right = (logprobs.argmax(-1) == rows[:, 1:]).numpy()
  first, again = nats[:2, :32], nats[:2, 32:]  # of copy
  assert found['copy'] == pytest.approx(1 - again.sum() / first.sum(), rel=1e-4)
  assert found['copy_acc'] == right[:2, 32:].mean()
  values, queries = nats[2:4, 1:32:2], nats[2:4, 33::2]  # of lookup
  saved = 1 - queries.sum() / values.sum()
  assert found['lookup'] == pytest.approx(saved, rel=1e-4)
  assert found['lookup_acc'] == right[2:4, 33::2].mean()
  label, later = nats[4:, 1:8:2], nats[4:, 9::2]
  assert found['labels'] == pytest.approx(
    1 - later.sum() / (7 * label.sum()), rel=1e-4
  )
  assert found['labels_acc'] == right[4:, 9::2].mean()


def test_a_model_without_a_context_saves_nothing(stories):
  """Zero weights: each piece has the same probability wherever it stands."""
  model = stories(scale=0.0)
  result = canaries(model.tokenizer).evaluate(model, name='x', step=None)
  assert result.metrics == dict.fromkeys(core.BETTER['in_context'], 0.0)
  assert 'fallen' not in result.metrics  # of a run alone
  rows = {r['name']: r for r in result.rows}
  assert rows['copy']['count'] == 64 and rows['lookup']['count'] == 32
  assert rows['labels']['count'] == 56
  assert rows['copy']['nats_first'] == pytest.approx(np.log(512))
  assert [rows[x]['protocol'] for x in ('copy', 'lookup_acc')] == [
    'in_context@copy',
    'in_context@lookup',
  ]


def test_it_warns_of_a_fall_since_the_start_also_in_a_run_that_resumes(
  stories, tmp_path
):
  """Compared with its first score of a process, a fall would be the norm."""
  results = tmp_path / 'results.jsonl'
  model, empty = stories(), stories(scale=0.0)

  def task(**changes):
    return canaries(model.tokenizer, results=results, **changes)

  first = task()
  start = first.evaluate(model, name='x', step=0)
  assert start.metrics['fallen'] == 0 and start.metrics['labels'] > 0.1
  told = core.warnings(start.rows)
  # It cannot copy, which is said at once.
  assert any('copy is -0.01 at the start: what a model' in x for x in told)
  assert not any('labels' in x for x in told)
  schedule.record(tmp_path, start)
  # The same process, another one, and one that started without a row.
  for made, fallen in (
    (first, 1),
    (task(), 1),
    (task(warn_fall=0.2), 0),
    (task(seed=1), 0),
    (canaries(model.tokenizer, results=tmp_path / 'none.jsonl'), 0),
  ):
    later = made.evaluate(empty, name='x', step=10)
    assert later.metrics['fallen'] == fallen
    (row,) = (r for r in later.rows if r['name'] == 'labels')
    assert ('warning' in row) == bool(fallen)
    if fallen:
      assert row['start'] == start.metrics['labels']
      assert core.warnings([row]) == [
        f'warning: x: labels fell from {row["start"]:.2f} at the start to '
        '0.00: the model loses what it does with its context; replay of the '
        'old data, or a lower rate, may keep it'
      ]
  # A fall is told of once, and counted as long as it lasts.
  again = first.evaluate(empty, name='x', step=20)
  assert again.metrics['fallen'] == 1 and not core.warnings(again.rows)
  unfit = task().evaluate(stories(scale=np.nan), name='x', step=20)
  assert unfit.metrics['fallen'] == 3


@pytest.mark.parametrize(
  'changes, error',
  [
    (dict(length=1024), '1024, but the model has 512 positions; take length=5'),
    (dict(length=62), 'length=62: a canary has at least 16 tokens, and a mult'),
    (dict(length=8), 'length=8: a canary has at least 16 tokens'),
    (dict(num_pieces=600), 'num_pieces=600, but the tokenizer has 512; take'),
    (
      dict(num_pieces=270),
      r'length=64 needs 36 different pieces that are text with letters, and of '
      r'the first 270 of the tokenizer 11 are; take a lower length, or seq',
    ),
  ],
)
def test_what_is_no_canary_is_refused(stories, changes, error):
  with pytest.raises(ValueError, match=error):
    canaries(stories().tokenizer, **changes)


def test_bytes_have_no_pieces_and_no_sequences_are_no_canary():
  with pytest.raises(ValueError, match='of the first 259 of the tokenizer 0'):
    canaries(tokenizers.load('bytes'))
  assert canaries(tokenizers.load('bytes'), sequences=0) is None
