"""A base under an adapter of PEFT: of a folder, or by its name on the hub."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lbe.convert import peft
from lbe.convert import peft_config
from lbe.convert import stored
from lbe.models import architecture
from lbe.text import bars
from lbe.text import hub
from lbe.vocab import tokenizers


class Adapted(NamedTuple):
  """`arrays`, by our flat names, are what the base has not or otherwise.

  `frozen` names the weights that stay the base's. `tokenizer` is that of the
  adapter's folder where it has one, else the base's.
  """

  config: architecture.Config
  arrays: dict[str, np.ndarray]
  frozen: list[str]
  tokenizer: tokenizers.Tokenizer | None


def folder(path: str) -> str:
  """Where an adapter lies; a name on the hub is fetched.

  Raises ValueError for what is none, or is computed otherwise than here.
  """
  found = hub.local(path)
  peft_config.read(found)
  return str(found)


def read(
  path: str,
  opened: stored.Opened,
  get_array: Callable[[str], np.ndarray],
) -> Adapted:
  """The adapter of a folder on the base whose arrays `get_array` has.

  Raises ValueError as peft.read, for a base that has adapters already, and for
  a tokenizer with more pieces than there are rows.
  """
  if opened.config.lora is not None:
    raise ValueError(
      f'{opened.path} has adapters already, and {path} belongs to a model '
      'without; give the base that it was trained on.'
    )
  c, arrays, frozen = peft.read(path, opened.config, get_array)
  for notice in peft.notices(path):
    bars.say(notice)
  tokenizer = opened.tokenizer
  if tokenizers.find(path):
    tokenizer = tokenizers.load(path)
  if tokenizer is not None and tokenizer.vocab_size > c.vocab_size:
    raise ValueError(
      f'{path} has {c.vocab_size} rows for a tokenizer of '
      f'{tokenizer.vocab_size} pieces; give the source that the adapter was '
      'trained on, or save new rows with it (PEFT: modules_to_save, or '
      'save_embedding_layers=True), and the tokenizer beside it.'
    )
  if tokenizer is not opened.tokenizer:
    bars.say(tokenizers.check_rows(tokenizer, c.vocab_size))
  return Adapted(c, arrays, frozen, tokenizer)
