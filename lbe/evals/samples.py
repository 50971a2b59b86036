"""How a model goes on from a run's prompts, the same at each evaluation."""

import dataclasses
import pathlib
from collections.abc import Sequence

from lbe.inference import decode
from lbe.inference import model as model_lib
from lbe.text import lines
from lbe.vocab import tokenizers

FILE = 'samples.jsonl'


@dataclasses.dataclass(frozen=True)
class Samples:
  """What a run lets its model write, and how; no prompts are no samples."""

  prompts: tuple[str, ...]
  max_new_tokens: int
  seed: int

  def write(self, model: model_lib.Model, step: int | None) -> list[dict]:
    """A record for each prompt, whose text its place and the seed decide."""
    records = []
    for i, prompt in enumerate(self.prompts):
      ids = decode.generate(
        model.params,
        model.config,
        [tokenizers.prompt_ids(model.tokenizer, prompt)],
        max_new_tokens=self.max_new_tokens,
        temperature=0.8,
        top_k=0,
        top_p=0.95,
        seed=self.seed + i,
        eos_id=model.tokenizer.eos_id,
        silent=tokenizers.without_piece(
          model.tokenizer, model.config.vocab_size
        ),
        execution=model.execution,
      )
      text = model.tokenizer.decode(ids[0])
      records.append(
        {
          'step': step,
          'evaluator': 'samples',
          'id': str(i),
          'prompt': prompt,
          'response': text,
        }
      )
    return records


def check(
  prompts: Sequence[str],
  max_new_tokens: int,
  tokenizer: tokenizers.Tokenizer,
  max_positions: int,
):
  """Raises ValueError for a prompt that no model of these could go on from."""
  for i, prompt in enumerate(prompts):
    num = len(tokenizers.prompt_ids(tokenizer, prompt))
    if not num:
      raise ValueError(
        f'sample_prompts[{i}]={prompt!r} has no token, and the tokenizer puts '
        'no BOS before it; write a text.'
      )
    if num + max_new_tokens > max_positions:
      raise ValueError(
        f'sample_prompts[{i}] has {num} tokens, and with '
        f'sample_max_new_tokens={max_new_tokens} that is more than the '
        f'{max_positions} positions of the model; shorten one of them.'
      )


def told(workdir: pathlib.Path) -> str:
  """The first sample of each prompt and its last, side by side."""
  path, shown = workdir / FILE, {}
  for record in lines.rows(path) if path.is_file() else ():
    shown.setdefault(record['prompt'], {})[record['step']] = record['response']
  result = []
  for prompt, by_step in shown.items():
    result.append(f'{prompt!r} goes on')
    steps = list(by_step)
    for step in dict.fromkeys([steps[0], steps[-1]]):
      result.append(f'  at step {step:,}: {by_step[step]!r}')
  return '\n'.join(result)
