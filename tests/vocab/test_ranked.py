"""A tokenizer.json of LLaMA 2's kind grows as its SentencePiece model does."""

import json
import re
import shutil

import pytest

from lbe.text import lines
from lbe.vocab import continued
from lbe.vocab import extend
from lbe.vocab import ranked
from lbe.vocab import rows
from lbe.vocab import tokenizers


@pytest.fixture(scope='module')
def saved(test_data, tmp_path_factory):
  """(LLaMA's .model, the same as transformers 5 saves it)."""
  from transformers import AutoTokenizer

  folder = tmp_path_factory.mktemp('saved')
  source = test_data / 'tok_llama_32000' / 'tokenizer.model'
  shutil.copy(source, folder)
  config = {'tokenizer_class': 'LlamaTokenizer', 'legacy': False}
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  (folder / 'config.json').write_text('{"model_type": "llama"}')
  AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
  (folder / 'tokenizer.model').unlink()
  return tokenizers.load(source), folder


def novels(test_data):
  path = next((test_data / 'text_zh_novels').glob('*.txt'))
  return lines.split(path.read_text(encoding='utf-8'))[:400]


def test_it_extends_like_its_model(saved, test_data):
  """It was refused, and it is what save_pretrained writes today."""
  model, folder = saved
  base, texts = tokenizers.load(folder), novels(test_data)
  assert base.kind == 'hf' and not base.byte_level

  def find(base):
    return continued.extend(base, texts, num_pieces=300, progress=False)

  ours, theirs = ranked.extend(base, find), find(model)
  assert ours.added == theirs.added
  assert ours.tokenizer.kind == 'hf'
  assert ours.tokenizer.vocab_size == 32000 + len(ours.added)
  tokenizers.check_extension(ours.tokenizer, base)
  english = (test_data / 'text_udhr' / 'eng.txt').read_text()
  for text in [*texts, *lines.split(english)]:
    text = text.strip(' ')
    assert ours.tokenizer.encode(text) == theirs.tokenizer.encode(text)
  spelled = rows.spell(base, ours.tokenizer)
  assert spelled == rows.spell(model, theirs.tokenizer)


def test_a_tokenizer_json_of_transformers_4_extends_too(test_data):
  """Its space is put by the normaliser, its special tokens normalized."""
  path = test_data / 'ckpt_hf_tiny_random_llama' / 'tokenizer.json'
  base = tokenizers.load(path)
  target = tokenizers.load(test_data / 'tok_chinese_sp_20000/chinese_sp.model')
  found = ranked.extend(base, lambda model: extend.extend(model, target))
  model = tokenizers.load(path.with_name('tokenizer.model'))
  assert found.added == extend.extend(model, target).added
  text = '清晨的集市已经热闹起来'
  assert max(found.tokenizer.encode(text)) >= 32000


def test_another_tokenizer_json_is_refused(saved):
  """Merges that no scores can say, and what is no BPE."""
  base = tokenizers.load(saved[1])
  record = json.loads(json.dumps(base.record))
  del record['model']['merges'][::2]
  with pytest.raises(ValueError, match='texts otherwise than a SentencePiece'):
    ranked.extend(base.with_record(record), None)
  record['model']['byte_fallback'] = False
  message = re.escape("a tokenizer.json of 'BPE' without byte fallback")
  with pytest.raises(ValueError, match=message):
    ranked.extend(base.with_record(record), None)
