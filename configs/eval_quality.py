"""Quality of a stored model's responses, by a judge at an endpoint.

  export OPENAI_API_KEY=...
  python -m lbe.evaluate --config=configs/eval_quality.py --workdir=runs/eval \
    --config.init_from=CKPT_OR_HF --config.evals.quality.questions=FILE.jsonl \
    --config.evals.quality.judge.model=gpt-4o

By a server of one's own with `judge.base_url=http://localhost:8000/v1` and
`judge.key_env=''`; by a model on disk with `eval_quality.py:local` and
`judge.model=CKPT_OR_HF`; `eval_quality.py:people` only keeps the responses.
"""

from lbe.configs import common

JUDGES = {
  'endpoint': common.endpoint,
  'local': common.local_judge,
  'people': common.people,
}


def get_config(judge='endpoint'):
  if judge not in JUDGES:
    raise ValueError(
      f'eval_quality.py:{judge} is unknown; take one of {", ".join(JUDGES)}.'
    )
  config = common.base()
  config.evals.quality = common.response_quality(judge=JUDGES[judge]())
  config.execution.compute_dtype = 'float32'
  return config
