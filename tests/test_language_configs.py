"""Configs of languages: each way loads, and one command gives one table."""

import json
import shutil

import jax
import pytest

from lbe.assemble import evaluators as evaluators_lib
from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import eval_languages
from lbe.configs import instruct_13_languages
from lbe.configs import language
from lbe.configs import zh_extend_vocab
from lbe.configs import zh_pretrain
from lbe.models import weights
from lbe.text import language_table
from lbe.vocab import tokenizers

import runs


@pytest.mark.parametrize('code', (*language_table.THIRTEEN, 'tl', 'zh'))
def test_every_language_has_its_way(code):
  """Catches a language that lacks data of another, as XCOPA or MGSM."""
  learnt = language.get_config(code)
  shares = {n: s.proportion for n, s in learnt.data.sources.items()}
  assert shares == {code: 0.8, 'en': 0.2}
  assert learnt.budget.of == code
  assert learnt.forgetting.target == (f'{code}/bits_per_byte',)
  tuned = language.get_config(f'{code},instruct')
  assert tuned.data.sources[code].template == 'bactrian_x'
  assert list(tuned.data.sources) == [code]
  known = language_table.language(code)
  for config in (learnt, tuned):
    assert {'swap', 'parallel', 'sib200', 'in_context'} <= set(config.evals)
    assert ('xcopa' in config.evals) == ('xcopa' in known.codes)
    # English has problems of its own.
    mine = (code, 'en') if 'mgsm' in known.codes else ('en',)
    assert config.evals.mgsm.subjects == mine
  chosen = language.get_config(f'{code},pretrain,h200')
  assert chosen.optim.first_moment_dtype == 'bfloat16'


def test_a_presets_adapters_leave_a_configs_own_and_train_new_rows():
  """New rows stayed as they were made; Bactrian-X's adapters became others."""
  for config in (
    zh_extend_vocab.get_config('100k,h100-7b-lora'),
    language.get_config('ta,pretrain,h100-7b-lora'),
  ):
    config.model.update(dim=16, num_layers=1, num_heads=2, mlp_dim=16)
    model = model_lib.make_config(config, tokenizers.Bytes())
    model = model_lib.adapted_config(config, model)
    partition = step_lib.make_partition(config, model, num_old=100)
    learning, frozen = jax.eval_shape(partition.split, weights.shapes(model))
    assert set(learning) == {'embed_VD', 'head_DV', 'lora'}
    assert 'embed_VD' not in frozen and 'head_DV' not in frozen
    assert not partition.frozen_new_rows()
  config = zh_pretrain.get_config('100k,h100-7b-lora')
  assert config.optim.groups.vocabulary.frozen
  assert not config.optim.groups.old_rows.frozen  # there are none
  tuned = language.get_config('ta,instruct,h100-7b-lora')
  assert tuned.lora == language.get_config('ta,instruct').lora
  assert tuned.optim.groups == language.get_config('ta,instruct').optim.groups


def test_the_ways_are_those_of_the_papers_runs():
  """Catches settings that drift from those of the configs they are made of."""
  learnt, chinese = language.get_config('zh'), zh_pretrain.get_config('all')
  tuned = language.get_config('sw,instruct')
  swahili = instruct_13_languages.get_config('sw')
  for mine, theirs in ((learnt, chinese), (tuned, swahili)):
    for block in ('data', 'optim', 'budget', 'execution', 'lora', 'new_rows'):
      found, expected = mine[block].to_dict(), theirs[block].to_dict()
      if mine is tuned and block == 'data':
        assert found['sources']['sw'].pop('max_documents') == 0
        assert expected['sources']['sw'].pop('max_documents') == 65_000
      assert found == expected, block


def test_what_is_no_language_or_stage_is_refused():
  for config, choice, message in (
    (language, 'xyz', "language 'xyz' is unknown"),
    (language, 'zho', "'zho' is unknown; the nearest is 'zh' .Chinese."),
    (language, 'en', 'language.py:en: a language is learnt beside English'),
    (language, 'ta,tune', "'tune' is unknown; take :ta, or one of :ta,pretr"),
    (language, 'ta,instruct,v9', "'v9' is no chip"),
    (eval_languages, 'ta,', "language '' is unknown; known are ar"),
    (eval_languages, 'ta,swahili', "nearest is 'sw' .Swahili."),
  ):
    with pytest.raises(ValueError, match=message):
      config.get_config(choice)


def make(config):
  config.evals.in_context.sequences = 0
  return evaluators_lib.make(
    config, None, tokenizers.Bytes(), max_positions=512
  )


def test_a_folder_without_a_language_is_told(test_data, tmp_path):
  """Of each evaluator, before anything compiles."""
  for name in ('parallel', 'swap', 'sib200'):
    config = eval_languages.get_config('ta,ja')
    config.evals[name].path = str(test_data / 'bench_sib200')
    with pytest.raises(
      ValueError, match=f'evals.{name}: .*no jpn_Jpan/.*Japanese; it has ar, bn'
    ):
      make(config)
  config = eval_languages.get_config('ta')
  config.evals.swap.path = str(tmp_path)
  with pytest.raises(ValueError, match='has no sentences by language'):
    make(config)
  config.evals.swap.source = 'ta'
  with pytest.raises(ValueError, match="languages=.'ta',. are of pairs@swap"):
    make(config)


def test_one_command_gives_one_table(test_data, tmp_path):
  output = runs.run(
    'evaluate',
    '--config=configs/eval_languages.py:ta,sw',
    f'--workdir={tmp_path}',
    f'--config.init_from={test_data / "ckpt_stories260K" / "hf"}',
    f'--config.evals.parallel.path={test_data / "text_ntrex"}',
    f'--config.evals.swap.path={test_data / "bench_sib200"}',
    '--config.evals.parallel.limit=2',
    '--config.evals.swap.limit=2',
    '--config.evals.in_context.sequences=0',
  )
  heads = (
    '| language | parallel/bits_per_sentence ↓ (N 2 sentences) '
    '| parallel/bits_per_byte ↓ (N 2 sentences) '
    '| parallel/relative (N 2 sentences) | swap/acc ↑ (N 2 pairs) |\n'
  )
  assert heads in output
  scores = json.loads((tmp_path / 'languages.json').read_text('utf-8'))
  assert list(scores['swap/acc']['languages']) == ['ta', 'sw']
  # English is what the others are compared with.
  bits = scores['parallel/bits_per_sentence']['languages']
  assert list(bits) == ['ta', 'sw', 'en']
  assert (tmp_path / 'languages.md').exists()
  assert (tmp_path / 'languages.png').exists()


@pytest.mark.parametrize('stage', ['pretrain', 'instruct'])
def test_the_way_of_tamil_is_ready_to_go(test_data, tmp_path, stage):
  """A dry run, with all that it scores but BLiMP and exams."""
  ntrex = test_data / 'text_ntrex'
  # Not the files that are scored: those are refused.
  path, english = tmp_path / 'ta.txt', tmp_path / 'en.txt'
  shutil.copy(ntrex / 'newstest2019-ref.tam.txt', path)
  shutil.copy(ntrex / 'newstest2019-src.eng.txt', english)
  more = [
    f'--config.data.sources.en.path={english}',
    '--config.data.sources.en.cut=line',
    '--config.data.sources.en.holdout=0.05',
  ]
  if stage == 'instruct':
    path, more = tmp_path / 'ta.json', []
    path.write_text(
      json.dumps(
        [
          {'instruction': f'என்ன {i}?', 'input': '', 'output': 'தமிழ்.'}
          for i in range(200)
        ]
      )
    )
  output = runs.run(
    'train',
    '--dry_run',
    f'--config=configs/language.py:ta,{stage},cpu',
    f'--workdir={tmp_path / "run"}',
    f'--config.init_from={test_data / "ckpt_stories260K" / "hf"}',
    f'--config.data.sources.ta.path={path}',
    '--config.data.sources.ta.cut=line',
    '--config.data.sources.ta.holdout=0.05',
    *more,
    '--config.data.seq_len=256',
    '--config.data.batch_size=4',
    '--config.data.num_workers=1',
    f'--config.evals.swap.path={ntrex}',
    f'--config.evals.parallel.path={ntrex}',
    f'--config.evals.sib200.path={test_data / "bench_sib200"}',
  )
  assert 'steps' in output
