"""Quality of a stored model's responses, by a judge at an endpoint.

  export OPENAI_API_KEY=...
  python -m lbe.evaluate --config=configs/eval_quality.py --workdir=runs/eval \
    --config.init_from=CKPT_OR_HF --config.evals.quality.questions=FILE.jsonl \
    --config.evals.quality.judge_model=gpt-4o

With a judge of one's own: `judge=local judge_model=CKPT_OR_HF`, or a server's
`base_url=http://localhost:8000/v1 key_env=''`.
"""

from configs import common


def get_config():
  config = common.base()
  config.evals.quality = common.response_quality()
  config.execution.compute_dtype = 'float32'
  return config
