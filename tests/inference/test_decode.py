"""Generation: cached equals full, rows are independent, limits hold."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.convert import hf
from lbe.convert import hf_config
from lbe.inference import decode
from lbe.inference import engine
from lbe.mesh import compilation
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.vocab import tokenizers

FP32 = forward.Execution(compute_dtype='float32')
TINY = architecture.Config(
  vocab_size=50,
  dim=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=48,
  max_positions=64,
  init_std=0.3,
)
PROMPTS = [[1, 7, 3], [1], [1, 9, 9, 9, 9, 9, 4]]


@functools.cache
def params():
  return weights.init(TINY, jax.random.key(0))


def generate(prompts, **changes):
  settings = dict(max_new_tokens=12, execution=FP32) | changes
  return decode.generate(params(), TINY, prompts, **settings)


def test_greedy_equals_the_argmax_of_the_full_forward():
  """Cache slots, positions, padding on the right of shorter prompts."""
  for prompt, new in zip(PROMPTS, generate(PROMPTS), strict=True):
    ids = prompt + new
    T = len(ids)
    x_BTD = forward.hidden(
      params(),
      TINY,
      jnp.asarray([ids]),
      positions_BT=jnp.arange(T)[None],
      segments_BT=jnp.ones((1, T), jnp.int32),
      execution=FP32,
    )
    likeliest_T = forward.logits(params(), TINY, x_BTD)[0].argmax(-1)
    assert likeliest_T[len(prompt) - 1 : -1].tolist() == new


def test_a_row_does_not_hang_on_its_neighbours():
  """Keys made per row: the same sample alone, in any batch, and any order."""
  sampled = functools.partial(generate, temperature=1.0, seed=3)
  together = sampled(PROMPTS)
  assert sampled(PROMPTS) == together
  assert generate(PROMPTS, temperature=1.0, seed=4) != together
  for i, prompt in enumerate(PROMPTS):
    assert sampled([prompt], seeds=[i]) == [together[i]]
  assert sampled(PROMPTS[::-1], seeds=[2, 1, 0]) == together[::-1]
  for batch_size in (1, 2):
    assert sampled(PROMPTS, batch_size=batch_size) == together
  # Others' seeds, and more padding.
  wide = [PROMPTS[0], list(range(1, 40))]
  assert sampled(wide, max_new_tokens=12)[0] == together[0]


def test_samples_of_a_prompt_are_those_of_many_rows():
  """Prefill repeated for the wrong row; a sample that its batch decides."""
  sampled = functools.partial(generate, temperature=1.0, num_samples=3)
  found = sampled(PROMPTS)
  assert len({tuple(row) for row in found}) == 9
  for batch_size in (2, 4):
    assert sampled(PROMPTS, batch_size=batch_size) == found
  assert sampled(PROMPTS[1:2], seeds=[1]) == found[3:6]
  greedy = generate(PROMPTS, num_samples=2)
  assert greedy[::2] == greedy[1::2] == generate(PROMPTS)


def test_a_shared_prefix_changes_no_id():
  """Its positions, its end, the repetition penalty on its tokens."""
  c = dataclasses.replace(TINY, max_positions=256)
  shared = [1 + (7 * i) % 47 for i in range(decode.MIN_PREFIX + 5)]
  prompts = [[*shared, *p] for p in PROMPTS]
  for settings in (
    {},
    dict(temperature=1.0, seed=5, repetition_penalty=1.2),
    dict(temperature=1.0, num_samples=2, batch_size=4),
  ):
    run = functools.partial(
      decode.generate,
      params(),
      c,
      prompts,
      max_new_tokens=12,
      execution=FP32,
      **settings,
    )
    assert run() == run(shared_prefix=False)


def test_a_prefix_is_used_where_it_is_long_enough(monkeypatch):
  """The comparison above would hold without any prefix."""
  lengths = []
  whole = engine.functions(TINY, FP32, None)

  def prefix(params, ids_1T, length):
    lengths.append(int(length))
    return whole.prefix(params, ids_1T, length)

  monkeypatch.setattr(
    engine, 'functions', lambda *_: whole._replace(prefix=prefix)
  )
  c = dataclasses.replace(TINY, max_positions=256)
  same = list(range(1, 41)) * 2
  for prompts, wanted in (
    ([same[:70] + [3], same[:70] + [4]], [70]),
    ([same[:70], same[:70] + [4]], [69]),  # the shorter one keeps a token
    ([same[:70]], []),
  ):
    lengths.clear()
    decode.generate(params(), c, prompts, max_new_tokens=2, execution=FP32)
    assert lengths == wanted


def test_numbers_compile_nothing():
  """A setting, a seed or a length as a part of the program."""
  generate(PROMPTS, temperature=1.0)
  before = compilation.num_compiled()
  for settings in (
    dict(temperature=0.5),
    dict(top_k=3),
    dict(top_p=0.4, min_p=0.1, repetition_penalty=1.4),
    dict(seed=9, seeds=[4, 5, 6]),
    dict(max_new_tokens=20),
  ):
    generate(PROMPTS, **settings)
  generate([[1, 2], [3] * 31, [4]])
  assert compilation.num_compiled() == before


@pytest.mark.parametrize(
  'shape', [dict(data=2, fsdp=2, tensor=2), dict(fsdp=4, context=2)], ids=str
)
def test_a_mesh_gives_the_ids_of_one_device(shape):
  """Rows, heads or the cache laid out so that something is lost."""
  mesh = sharding.make_mesh(shape)
  c = dataclasses.replace(TINY, max_positions=256)
  placed = jax.device_put(
    params(), sharding.shardings(mesh, weights.dims(TINY))
  )
  shared = [1 + (7 * i) % 47 for i in range(decode.MIN_PREFIX + 5)]
  for prompts, settings in (
    (PROMPTS, dict(temperature=1.0, top_p=0.9, num_samples=2)),
    ([[*shared, *p] for p in PROMPTS], dict(repetition_penalty=1.3)),
  ):
    run = functools.partial(
      decode.generate,
      c=c,
      prompts=prompts,
      max_new_tokens=12,
      execution=FP32,
      **settings,
    )
    assert run(placed, mesh=mesh) == run(params())


def test_samples_follow_the_distribution():
  """One token from BOS, 4,000 times, against the softmax; no padding id."""
  x_BTD = forward.hidden(
    params(),
    TINY,
    jnp.asarray([[1]]),
    positions_BT=jnp.zeros((1, 1), jnp.int32),
    segments_BT=jnp.ones((1, 1), jnp.int32),
    execution=FP32,
  )
  logits_V = forward.logits(params(), TINY, x_BTD)[0, 0]
  for temperature in (1.0, 0.5):
    p_V = np.asarray(jax.nn.softmax(logits_V / temperature))
    new = generate([[1]] * 4000, max_new_tokens=1, temperature=temperature)
    found_V = np.bincount(np.ravel(new), minlength=128) / 4000
    assert abs(found_V - p_V).sum() / 2 < 0.06
    assert not found_V[50:].any()


def test_top_k_and_top_p_keep_the_likeliest():
  """The sets that they keep, by sorting here."""
  free = generate([[1]] * 4000, max_new_tokens=1, temperature=1.0)
  order = np.argsort(-np.bincount(np.ravel(free), minlength=50))
  two = generate([[1]] * 500, max_new_tokens=1, temperature=9.0, top_k=2)
  assert {t for (t,) in two} <= set(order[:4].tolist())
  assert len({t for (t,) in two}) == 2
  (greedy,) = generate([[1]], max_new_tokens=1)
  for settings in (dict(top_k=1), dict(top_p=1e-6)):
    new = generate([[1]] * 50, max_new_tokens=1, temperature=5.0, **settings)
    assert new == [greedy] * 50


def test_a_row_ends_before_eos():
  """Others go on; what follows EOS is not returned."""
  whole = generate(PROMPTS)
  eos = whole[0][3]
  ended = generate(PROMPTS, eos_id=eos)
  for a, b in zip(ended, whole, strict=True):
    assert a == (b[: b.index(eos)] if eos in b else b)
  both = generate(PROMPTS, eos_id=(49, whole[0][1], whole[1][2]))
  assert len(both[0]) <= 1 and len(both[1]) <= 2


def test_a_penalty_and_min_p_reach_the_program():
  """Settings that are checked and then not used."""
  assert generate(PROMPTS, repetition_penalty=50.0) != generate(PROMPTS)
  for row in generate(PROMPTS, repetition_penalty=1e6, max_new_tokens=8):
    assert len(set(row)) == 8
  sure = generate(PROMPTS, temperature=3.0, min_p=1.0)
  assert sure == generate(PROMPTS)


def test_rows_end_where_somebody_has_seen_enough():
  """Chunks give the ids of one go; the others go on."""
  whole = generate(PROMPTS)
  seen = {}

  def watch(i, ids):
    seen.setdefault(i, []).append(len(ids))
    return i == 1 and len(ids) >= 5

  found = generate(PROMPTS, watch=watch, chunk=3)
  assert found == [whole[0], whole[1][:6], whole[2]]
  assert seen == {0: [3, 6, 9, 12], 1: [3, 6], 2: [3, 6, 9, 12]}


@pytest.mark.parametrize(
  'prompts, settings, words',
  [
    ([], {}, 'a prompt is empty'),
    ([[1], []], {}, 'a prompt is empty'),
    ([[1, 50]], {}, 'prompt 0 has the ids 1 to 50'),
    ([[-1]], {}, 'prompt 0 has the ids -1 to -1'),
    ([[1]], dict(temperature=-1.0), 'temperature=-1.0 is out of range'),
    ([[1]], dict(max_new_tokens=0), 'max_new_tokens=0 is out of range'),
    ([[1]], dict(max_new_tokens=64), 'more than the 64 positions'),
    ([[1]], dict(num_samples=0), 'num_samples=0 is out of range'),
    ([[1]], dict(batch_size=0), 'batch_size=0 is out of range'),
    ([[1]], dict(seed=-1), 'a seed is -1'),
    ([[1]], dict(seeds=[2**32]), 'a seed is 4294967296'),
    ([[1]], dict(seeds=[1, 2]), '2 seeds for 1 prompts'),
  ],
)
def test_what_cannot_be_generated_is_refused(prompts, settings, words):
  with pytest.raises(ValueError, match=words):
    generate(prompts, **settings)


# ------------------------------------------------------------------ responses


@pytest.fixture(scope='module')
def stories(test_data):
  folder = test_data / 'ckpt_stories260K' / 'hf'
  c, _ = hf_config.read_config(folder)
  loaded = hf.load_params(folder, c, dtype='float32')
  return c, jax.tree.map(jnp.asarray, loaded), tokenizers.load(folder)


def respond(stories, prompts, **changes):
  c, loaded, tokenizer = stories
  ids = [tokenizers.prompt_ids(tokenizer, p) for p in prompts]
  settings = dict(max_new_tokens=60, execution=FP32, mesh=None, batch_size=4)
  return decode.respond(loaded, c, tokenizer, ids, **settings | changes)


def test_a_response_ends_before_its_stop_string(stories):
  """One that spans tokens; ids end with the token that completes it."""
  tokenizer = stories[2]
  prompts = ['Once upon a time', 'Tom had a dog.']
  whole = respond(stories, prompts)
  assert {r.ended for r in whole} == {'length'}
  middle = len(whole[0].text) // 2
  stop = whole[0].text[middle : middle + 7]
  assert not any(stop in tokenizer.piece(t) for t in whole[0].ids)
  for chunk in (1, 7, 32):
    first, second = respond(stories, prompts, stop=(stop,), chunk=chunk)
    at = whole[0].text.index(stop)
    assert (first.text, first.ended) == (whole[0].text[:at], 'stop')
    written = tokenizer.decode(first.ids)
    assert stop in written
    assert stop not in tokenizer.decode(first.ids[:-1])
    if stop not in whole[1].text:
      assert second == whole[1]


def test_a_response_keeps_the_space_that_it_begins_with(stories):
  """SentencePiece drops the space of the first token it decodes."""
  (response,) = respond(stories, ['Once upon a'])
  assert response.text.startswith(' time')


def by_rote(text):
  """(params, config) of a model that says `text` byte by byte after BOS.

  Its layers do nothing; the head of each byte is the embedding of the one
  before it, so no byte may come twice.
  """
  order = [1, *tokenizers.Bytes().encode(text), 2]
  assert len(set(order)) == len(order)
  c = dataclasses.replace(TINY, vocab_size=259, dim=260, num_layers=1)
  made = jax.tree.map(jnp.zeros_like, weights.init(c, jax.random.key(0)))
  embed_VD = np.zeros(made['embed_VD'].shape, np.float32)
  head_DV = np.zeros(made['head_DV'].shape, np.float32)
  for i, token in enumerate(order):
    embed_VD[token, i] = 1
    if i:
      head_DV[i - 1, token] = 1
  ones = jnp.ones(c.dim)
  return {
    **made,
    'embed_VD': embed_VD,
    'head_DV': head_DV,
    'final_norm_D': ones,
  }, c


@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_rows_without_a_piece_are_never_chosen(temperature):
  """IndexError, or nothing, where a padded model wrote such an id."""
  loaded, c = by_rote('abc')
  c = dataclasses.replace(c, vocab_size=262)
  # The last row is the likeliest by far, behind everything.
  loaded['head_DV'][:4, 261] = 20.0
  settings = dict(max_new_tokens=2, execution=FP32, temperature=temperature)
  assert decode.generate(loaded, c, [[1]], **settings)[0][0] == 261
  (response,) = decode.respond(
    loaded,
    c,
    tokenizers.Bytes(),
    [[1]],
    mesh=None,
    batch_size=1,
    top_k=1,
    **settings,
  )
  assert response.text == 'ab'


def test_a_chinese_stop_string_in_bytes():
  """Nine tokens for three characters; a chunk ends inside one."""
  text = '早飯，走'
  loaded, c = by_rote(text)
  seen = []
  for stop, wanted, ended, num in (
    ((), text, 'eos', 12),
    (('，',), '早飯', 'stop', 9),
    (('飯，', '走'), '早', 'stop', 9),
  ):
    (response,) = decode.respond(
      loaded,
      c,
      tokenizers.Bytes(),
      [[1]],
      max_new_tokens=20,
      execution=FP32,
      mesh=None,
      batch_size=1,
      stop=stop,
      chunk=2,
      on_text=lambda i, text: seen.append(text),
    )
    assert (response.text, response.ended) == (wanted, ended)
    assert len(response.ids) == num
  assert all('\ufffd' not in text for text in seen)
  assert '早' in seen


def test_prompts_longer_than_the_window_are_cut_and_counted(stories):
  """BOS stays; what is left is what the model sees."""
  tokenizer = stories[2]
  long = 'Lily saw a cat. ' * 20
  ids = tokenizers.prompt_ids(tokenizer, long)
  short = tokenizers.prompt_ids(tokenizer, 'Tom')
  ask = functools.partial(
    decode.respond,
    stories[1],
    stories[0],
    tokenizer,
    max_new_tokens=8,
    execution=FP32,
    mesh=None,
    batch_size=2,
  )
  first, second = ask([ids, short], max_len=40, too_long='cut_left')
  (same,) = ask([ids[:1] + ids[-31:]])
  assert (first.ids, first.cut) == (same.ids, len(ids) - 32)
  assert second.cut == 0
  for settings, words in (
    (dict(max_len=40), f'prompt 0 has {len(ids)} tokens.*place for 32'),
    (dict(max_len=9, too_long='cut_left'), 'place for 1; shorten'),
    (dict(too_long='drop'), "too_long='drop' is unknown"),
    (dict(stop=('',)), 'a stop string is a text, not empty'),
  ):
    with pytest.raises(ValueError, match=words):
      ask([ids], **settings)


def test_samples_and_batches_of_responses(stories):
  """A response at another prompt's place."""
  prompts = ['Once', 'A big dog ran to the park and', 'Sue']
  settings = dict(temperature=1.0, num_samples=2, max_new_tokens=10)
  found = respond(stories, prompts, batch_size=6, **settings)
  assert respond(stories, prompts, batch_size=1, **settings) == found
  assert respond(stories, prompts, batch_size=2, **settings) == found


def test_what_is_settled_of_a_text():
  """Half a character, and what may become a stop string."""
  assert decode.settled('你好\ufffd\ufffd') == '你好'
  assert decode.settled('a\nHum', ('\nHuman:',)) == 'a'
  assert decode.settled('a\nHuman: b', ('\nHuman:', 'b')) == 'a'
  assert decode.settled('abc', ('d',)) == 'abc'
