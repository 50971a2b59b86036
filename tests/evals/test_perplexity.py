"""Rolling log-likelihood: windows by hand, and lm-evaluation-harness."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.chat import messages
from lbe.chat import templates
from lbe.convert import hf
from lbe.convert import hf_config
from lbe.data import sources
from lbe.evals import perplexity
from lbe.inference import model as model_lib
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import weights as weights_lib
from lbe.vocab import export as vocab_export
from lbe.vocab import tokenizers

FP32 = forward.Execution(compute_dtype='float32', scan=False)


@pytest.fixture(scope='module')
def stories(test_data):
  folder = test_data / 'ckpt_stories260K' / 'hf'
  c, _ = hf_config.read_config(folder)
  params = hf.load_params(folder, c, dtype='float32')
  return folder, c, jax.tree.map(jnp.asarray, params), tokenizers.load(folder)


def model(stories, *, batch_size=8, mesh=(1, 1), max_len=64):
  _, c, params, tokenizer = stories
  made = sharding.make_mesh(
    dict(data=mesh[0], fsdp=mesh[1], context=1, tensor=1),
    devices=jax.devices()[: mesh[0] * mesh[1]],
  )
  params = jax.device_put(params, sharding.shardings(made, weights_lib.dims(c)))
  return model_lib.Model(params, c, tokenizer, made, FP32, batch_size, max_len)


def score(stories, documents, **settings):
  return perplexity.document_nats(model(stories, **settings), documents)


@pytest.fixture(scope='module')
def documents(test_data):
  """English and Chinese, shorter and much longer than a window."""
  english = sources.Source(
    name='en',
    path=str(test_data / 'text_en_wikitext2' / 'wiki.validation.raw.txt'),
    cut='line',
  )
  found = [text for text, _ in sources.documents(english)][:12]
  chinese = (test_data / 'text_zh_niutrans_modern' / '左传.txt').read_text()
  return [*found, chinese[:300], 'Once upon a time', ' \n leading space']


def test_document_scores_are_those_of_lm_evaluation_harness(
  stories, documents, tmp_path
):
  """BOS, windows, EOS, special tokens: each choice moves the score."""
  import transformers
  from lm_eval.api.instance import Instance
  from lm_eval.models.huggingface import HFLM

  folder, c, _, tokenizer = stories
  vocab_export.write(tokenizer, tmp_path, max_positions=c.max_positions)
  theirs = HFLM(
    pretrained=transformers.AutoModelForCausalLM.from_pretrained(folder),
    tokenizer=transformers.AutoTokenizer.from_pretrained(tmp_path),
    add_bos_token=False,
    max_length=64,
    batch_size=4,
    device='cpu',
  )
  assert theirs.prefix_token_id == tokenizer.bos_id
  requests = [
    Instance(
      request_type='loglikelihood_rolling', doc={}, arguments=(text,), idx=0
    )
    for text in documents
  ]
  expected = np.array(theirs.loglikelihood_rolling(requests, disable_tqdm=True))
  nats, num_tokens = score(stories, documents)
  np.testing.assert_allclose(nats, -expected, rtol=1e-5)
  assert num_tokens.tolist() == [len(tokenizer.encode(t)) for t in documents]


def test_batch_order_and_mesh_do_not_move_a_score(stories, documents):
  """Padding that leaks, or a shard that is counted twice."""
  whole, _ = score(stories, documents)
  alone = [score(stories, [text], batch_size=1)[0][0] for text in documents[:3]]
  np.testing.assert_allclose(alone, whole[:3], rtol=1e-5)
  backwards, _ = score(stories, documents[::-1], batch_size=3)
  np.testing.assert_allclose(backwards[::-1], whole, rtol=1e-5)
  sharded, _ = score(stories, documents, mesh=(2, 4))
  np.testing.assert_allclose(sharded, whole, rtol=1e-5)


def test_the_corpus_is_divided_once_and_by_the_texts_own_bytes():
  """A mean over documents would weight short ones too much."""
  nats, tokens = np.array([10.0, 90.0]), np.array([10, 30])
  counts = {
    'byte': np.array([20, 80]),
    'character': np.array([10, 40]),
    'word': np.array([5, 5]),
  }
  rows = perplexity.summarize(nats, tokens, counts)
  found = {name: (value, count) for name, value, count in rows}
  assert found['bits_per_byte'] == (pytest.approx(1 / math.log(2)), 100)
  assert found['perplexity'] == (pytest.approx(math.exp(2.5)), 40)
  assert found['nats_per_document'] == (50.0, 2)
  assert found['perplexity_per_character'] == (pytest.approx(math.exp(2)), 50)
  assert found['perplexity_per_word'] == (pytest.approx(math.exp(10)), 10)
  mean = (math.exp(1) + math.exp(3)) / 2
  assert found['perplexity_sample_mean'] == (pytest.approx(mean), 2)


def test_no_perplexity_is_infinite(stories):
  """Chinese has no words by white space: e^1000 a word says nothing."""
  counts = {x: np.array([n]) for x, n in dict(byte=600, word=1).items()}
  rows = perplexity.summarize(np.array([1000.0]), np.array([300]), counts)
  assert 'perplexity_per_word' not in [name for name, _, _ in rows]
  for text, told in (
    ('我们去了公园。 他们也去了。', False),
    ('He went to the park and said 我们去了公园。', False),
    ('We went.', True),
  ):
    made = perplexity.Documents([text], ['a'], max_len=64)
    found = made.evaluate(model(stories), name='zh', step=0)
    assert ('perplexity_per_word' in found.metrics) == told
    assert all(math.isfinite(x) for x in found.metrics.values())


def test_a_uniform_model_has_the_known_score(stories):
  """Zero weights: every one of 512 pieces has the same probability."""
  folder, c, params, tokenizer = stories
  zeros = jax.tree.map(jnp.zeros_like, params)
  nats, num_tokens = score((folder, c, zeros, tokenizer), ['Once upon a time'])
  np.testing.assert_allclose(nats, num_tokens * math.log(512), rtol=1e-6)


def test_response_scores_are_those_of_transformers(stories, test_data):
  """The tokens with weight, given all before them; batches change nothing."""
  import torch
  import transformers

  folder, _, _, tokenizer = stories
  encode = templates.Encoder('plain', tokenizer)
  examples = []
  for question, answer in (
    ('Who is Tim?', 'Tim is a boy. He likes to play.'),
    ('Say yes', 'Yes'),
    ('中文', '好的，我会说。'),
  ):
    talk = [
      messages.Message('user', question),
      messages.Message('assistant', answer),
    ]
    ids, weights = encode(talk)
    examples.append((np.array(ids), np.array(weights)))
  nats, num_tokens = perplexity.response_nats(
    model(stories, batch_size=2, max_len=128), examples
  )
  theirs = transformers.LlamaForCausalLM.from_pretrained(folder)
  for i, (ids, weights) in enumerate(examples):
    labels = torch.tensor(np.where(weights > 0, ids, -100))[None]
    with torch.no_grad():
      loss = theirs(torch.tensor(ids)[None], labels=labels).loss
    assert num_tokens[i] == (weights > 0).sum()
    np.testing.assert_allclose(nats[i], loss * num_tokens[i], rtol=1e-5)


def test_bytes_are_those_of_the_tokens_that_are_scored(stories):
  """A first token that is no BOS is predicted from nothing; its bytes were
  counted."""
  of = model(stories)
  ids = np.array(of.tokenizer.encode('Once upon a time'))
  lengths = np.asarray(of.tokenizer.byte_lengths)
  talk = perplexity.Documents([(ids, np.ones(len(ids)))], ['a'], max_len=64)
  (found,) = talk.evaluate(of, name='x', step=0).predictions
  assert lengths[ids[0]] > 0
  assert found['bytes'] == lengths[ids[1:]].sum()
  assert found['tokens'] == len(ids) - 1


def test_the_data_hash_is_of_the_documents_alone(stories, documents):
  """By their order, or their ids, it would differ from run to run."""
  names = [str(i) for i in range(4)]
  texts = perplexity.Documents(documents[:4], names, max_len=64)
  turned = perplexity.Documents(documents[3::-1], names[::-1], max_len=64)
  ids = np.arange(3, 9)
  talk = perplexity.Documents([(ids, ids > 5)] * 4, names, max_len=64)
  found = [
    made.evaluate(model(stories), name='x', step=0)
    for made in (texts, turned, talk)
  ]
  assert len({r['data_hash'] for made in found for r in made.rows}) == 1
  nats = [{p['id']: p['nats'] for p in made.predictions} for made in found]
  assert nats[0] == pytest.approx(nats[1])
  assert [p['id'] for p in found[0].predictions] == names
