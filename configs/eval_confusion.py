"""Does a stored model answer in the language it is asked in, or for?

  python -m lbe.evaluate --config=configs/eval_confusion.py:zh,ar \\
    --workdir=runs/confusion --config.init_from=CKPT_OR_HF \\
    --config.evals.monolingual.path=DIR/test_sets/monolingual \\
    --config.evals.crosslingual.path=DIR/test_sets/crosslingual

The Language Confusion Benchmark (github.com/for-ai/language-confusion), of the
languages behind the colon, without which it is all that the folders and the
table of languages have; `limit` is of each file. Responses are drawn as its
authors drew theirs. `template` is that of the model. Rates come close to the
published ones with `language_identifier=lid.176.bin` and `english_words=words`,
its own files; docs/judging.md says how close.
"""

from lbe.configs import common


def get_config(languages=''):
  config = common.base()
  for task in ('monolingual', 'crosslingual'):
    config.evals[task] = common.code_switching(
      languages=tuple(filter(None, languages.split(','))),
      language_identifier='lingua',
      temperature=0.3,
      top_p=0.75,
      max_new_tokens=100,
    )
  config.execution.compute_dtype = 'float32'
  return config
