"""From a conversation to ids and loss weights: templates, and their border.

A template is text around the messages. Text is encoded as one, not message
by message, so that no tokenizer puts its space before a response. But when a
model answers, it has seen the prompt encoded alone: a training example keeps
these very ids up to the border, whatever could be joined across it. Where
encoding as one would join, the response goes on in ids of its own, encoded
without the space. With belle_2023, whose prompt ends with a space, and LLaMA's
tokenizer, `Hello` on `Hi` is

  alone    <s> ▁Human : ▁Hi <0x0A> <0x0A> Ass istant : ▁
  as one   <s> ▁Human : ▁Hi <0x0A> <0x0A> Ass istant : ▁Hello </s>
  here     <s> ▁Human : ▁Hi <0x0A> <0x0A> Ass istant : ▁ Hello </s>
  weights  0   0      0 0   0      0      0   0      0 0 1     1

Where nothing joins, ids and weights are those that Alpaca's script and BELLE's
of 2023 make: encoded as one, with no loss on as many tokens as the prompt
alone has. The scripts of Chinese-Alpaca and today's BELLE encode the response
apart, so that it begins with `▁`. What was published with Chinese-Alpaca has
seen that, so its templates write the space; BELLE's goes on from the line end.

`<s>` and `</s>` in a template stand for BOS (where the tokenizer has one) and
EOS, and text behind them begins anew. Other control strings become their ids
where the tokenizer has them as such, else they are text. What stands in a
message never becomes one.
"""

import dataclasses
import functools
import re
from typing import NamedTuple

from lbe.chat import messages

LOSSES = ('responses', 'last_response', 'all')
POLICIES = ('fail', 'drop', 'cut_prompt')


class Span(NamedTuple):
  """Text, or one special token; `response` counts from 1, 0 is no response."""

  text: str
  response: int = 0
  special: bool = False


@dataclasses.dataclass(frozen=True)
class Template:
  """The text around a message; only `response` is learnt.

  `user` goes up to where the response begins. `user_with_input` is for an
  input that has a place of its own, else `join` puts it behind the
  instruction. `system` stands before the first user, `first_user` is in its
  place where the system text stands inside. `one_turn` marks what its source
  defines for one question and one response only.
  """

  user: str
  response: str = '{response}</s>'
  user_with_input: str = ''
  join: str = '\n'
  begin: str = '<s>'
  system: str = ''
  first_user: str = ''
  default_system: str = ''
  after: str = ''
  strip: bool = False
  one_turn: bool = False


TEMPLATES = {
  # tatsu-lab/stanford_alpaca, train.py
  'alpaca': Template(
    user=(
      'Below is an instruction that describes a task. Write a response that '
      'appropriately completes the request.\n\n'
      '### Instruction:\n{user}\n\n### Response:'
    ),
    user_with_input=(
      'Below is an instruction that describes a task, paired with an input '
      'that provides further context. Write a response that appropriately '
      'completes the request.\n\n'
      '### Instruction:\n{user}\n\n### Input:\n{input}\n\n### Response:'
    ),
    one_turn=True,
  ),
  # ymcui/Chinese-LLaMA-Alpaca, scripts/training/build_dataset.py
  'chinese_alpaca_1': Template(
    user=(
      'Below is an instruction that describes a task. Write a response that '
      'appropriately completes the request.\n\n'
      '### Instruction:\n{user}\n\n### Response: '
    ),
    response=' {response}</s>',
    one_turn=True,
  ),
  # ymcui/Chinese-LLaMA-Alpaca-2, scripts/training/build_dataset.py
  'chinese_alpaca_2': Template(
    user='[INST] {user} [/INST]',
    response=' {response}</s>',
    first_user='[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]',
    default_system='You are a helpful assistant. 你是一个乐于助人的助手。',
    one_turn=True,
  ),
  # LianjiaTech/BELLE, train/finetune.py as of 2023
  'belle_2023': Template(
    user='Human: {user}\n\nAssistant: ', join='', one_turn=True
  ),
  # LianjiaTech/BELLE, train/src/sample_generator.py: no BOS
  'belle': Template(user='Human: \n{user}\n\nAssistant: \n', join='', begin=''),
  # mbzuai-nlp/bactrian-x, templates/bactrian.json
  'bactrian_x': Template(
    user='### Input:\n{user}\n\n### Output:\n', join='\n\n', one_turn=True
  ),
  # meta-llama/llama, llama/generation.py: each turn a text of its own
  'llama2_chat': Template(
    begin='',
    user='<s>[INST] {user} [/INST]',
    first_user='<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]',
    response=' {response} </s>',
    strip=True,
  ),
  # meta-llama/llama3, llama/tokenizer.py
  'llama3_chat': Template(
    system=('<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>'),
    user=(
      '<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>'
      '<|start_header_id|>assistant<|end_header_id|>\n\n'
    ),
    response='{response}<|eot_id|>',
    strip=True,
  ),
  # openai/openai-python, chatml.md, in the form that Qwen made common
  'chatml': Template(
    begin='',
    system='<|im_start|>system\n{system}<|im_end|>\n',
    user='<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n',
    response='{response}<|im_end|>',
    after='\n',
  ),
  'plain': Template(user='{user}\n'),
}
_PIECES = re.compile(r'(\{[a-z]+\}|</?s>|<\|[a-z_]+\|>)')


def find(name: str) -> Template:
  """The Template of that name; ValueError lists the known ones."""
  if name not in TEMPLATES:
    raise ValueError(
      f'template {name!r} is unknown; take one of {", ".join(TEMPLATES)}.'
    )
  return TEMPLATES[name]


def _control_strings(name):
  literals = (v for v in vars(find(name)).values() if isinstance(v, str))
  return set(re.findall(r'<\|[a-z_]+\|>', ''.join(literals)))


def spans(name: str, conversation) -> list[Span]:
  """The Spans of a conversation; one that ends with the user is a prompt.

  Raises ValueError for what the template has no place for.
  """
  template = find(name)
  parts = []

  def put(literal, texts=None, number=0):
    for piece in _PIECES.split(literal):
      if piece[:1] == '{':
        text = texts[piece[1:-1]]
        parts.append(Span(text.strip() if template.strip else text, number))
      elif piece:
        special = bool(_PIECES.fullmatch(piece))
        parts.append(Span(piece, number, special))

  turns = list(conversation)
  system = template.default_system
  if turns[0].role == 'system':
    system = turns.pop(0).content
    if not (template.system or template.first_user):
      raise ValueError(
        f'template {name!r} has no place for a system message ({system!r:.60});'
        ' leave it out, or take llama2_chat, llama3_chat or chatml.'
      )
  if template.one_turn and len(turns) > 2:
    raise ValueError(
      f'template {name!r} is for one question and one response, and there '
      f'are {len(turns)} turns; take belle, llama2_chat, llama3_chat, chatml '
      'or plain.'
    )
  put(template.begin)
  if template.system and system:
    put(template.system, {'system': system})
  for i, turn in enumerate(turns):
    if turn.role == 'assistant':
      put(template.response, {'response': turn.content}, i // 2 + 1)
      put(template.after)
    elif turn.input and template.user_with_input:
      put(template.user_with_input, {'user': turn.content, 'input': turn.input})
    else:
      text = turn.content
      if turn.input:
        text += template.join + turn.input
      if i == 0 and system and template.first_user:
        put(template.first_user, {'system': system, 'user': text})
      else:
        put(template.user, {'user': text})
  return parts


# ----------------------------------------------------------------- encoding


class Encoder:
  """Conversations to (ids, weights), both lists; a weight is 0 or 1.

  `template` is a name, or a jinja.ChatTemplate of the same tokenizer. `loss`
  says what is learnt: the responses (but those marked as not trained), only
  the last of them, or everything but BOS. A conversation that ends with the
  user gives the ids to answer.
  """

  def __init__(self, template, tokenizer, *, loss: str = 'responses'):
    """Raises ValueError where template, tokenizer and loss do not go together.

    So for unknown names, a missing EOS, or a chat_template without marks.
    """
    if loss not in LOSSES:
      raise ValueError(
        f'loss={loss!r} is unknown; take one of {", ".join(LOSSES)}.'
      )
    self._start = tokenizer.encode
    self._behind_other = tokenizer.after_special().encode
    self._go_on = tokenizer.without_prefix().encode
    self._loss, self._bos_id = loss, tokenizer.bos_id
    self._specials = tokenizer.specials
    # Those that take the white space before them, or behind.
    self._lstrip = {t.content for t in tokenizer.added if t.lstrip}
    self._rstrip = {t.content for t in tokenizer.added if t.rstrip}
    # Special token → how a text is encoded behind it.
    self._behind = {}
    self._symbols = {}
    if not isinstance(template, str):
      if not template.has_marks and loss != 'all':
        raise ValueError(
          'the chat_template has no {% generation %} marks, so it does not '
          "say what a response is; add them, or take loss='all' or a template "
          f'by name ({", ".join(TEMPLATES)}).'
        )
      self._spans = template.spans
    else:
      if '</s>' in find(template).response and tokenizer.eos_id is None:
        raise ValueError(
          f'template {template!r} ends a response with EOS, and the tokenizer '
          'has none; name its eos_token, or take another template.'
        )
      self._spans = functools.partial(spans, template)
      roles = {'<s>': tokenizer.bos_id, '</s>': tokenizer.eos_id}
      self._behind = dict.fromkeys(roles, tokenizer.encode)
      # User-defined symbols are one token in any text, so in a message too.
      self._symbols = {
        text: ids[0]
        for text in _control_strings(template) - tokenizer.specials.keys()
        if len(ids := self._go_on(text)) == 1
      }
      self._specials = {**tokenizer.specials, **self._symbols, **roles}

  def __call__(self, conversation) -> tuple[list[int], list[int]]:
    for message in conversation:
      for text in self._symbols:
        if text in message.content + message.input:
          raise ValueError(
            f'a message of the {message.role} has {text!r}, which this '
            'tokenizer reads as a control token also in text; leave it out.'
          )
    joined = self._joined(self._spans(conversation))
    learnt = self._learnt(conversation)
    ids, weights = [], []
    # The text since the last special token, and its ids.
    text, held, encode = '', [], self._start
    for span in joined:
      if span.special:
        token = self._specials[span.text]
        new = [] if token is None else [token]
        text, held = '', []
        encode = self._behind.get(span.text, self._behind_other)
      else:
        text += span.text
        whole = encode(text)
        joins = whole[: len(held)] != held
        new = self._go_on(span.text) if joins else whole[len(held) :]
        held = held + new
      ids += new
      weights += [int(span.response in learnt)] * len(new)
    if self._loss == 'all':
      weights = [int(token != self._bos_id) for token in ids]
    return ids, weights

  def end_of_response(self) -> tuple[int | None, str]:
    """(token, text) that stand behind a response, or None and ''.

    The text is what comes before the token, without white space: where the
    tokenizer lacks a template's control string, that is how it is written.
    """
    mark = 'response'
    joined = self._joined(
      self._spans(
        [messages.Message('user', '-'), messages.Message('assistant', mark)]
      )
    )
    last = max(i for i, span in enumerate(joined) if mark in span.text)
    text = joined[last].text.rpartition(mark)[2]
    for span in joined[last + 1 :]:
      if span.special:
        return self._specials[span.text], text.strip()
      text += span.text
    return None, text.strip()

  def _learnt(self, conversation):
    """The numbers of the responses that are learnt."""
    responses = [m for m in conversation if m.role == 'assistant']
    learnt = {i for i, m in enumerate(responses, 1) if m.trained}
    if self._loss == 'last_response':
      learnt &= {len(responses)}
    return learnt

  def _joined(self, spans):
    """Strings that are no special tokens here as text; texts side by side."""
    result = []
    for text, response, special in spans:
      special = special and text in self._specials
      if result and not special and not result[-1].special:
        if result[-1].response == response:
          result[-1] = Span(result[-1].text + text, response)
          continue
      result.append(Span(text, response, special))
    return self._stripped(result)

  def _stripped(self, spans):
    """Spans without the white space that a special token takes."""
    if not (self._lstrip or self._rstrip):
      return spans
    for strip, takers in (
      (str.lstrip, self._rstrip),
      (str.rstrip, self._lstrip),
    ):
      taken, kept = False, []
      for span in spans if strip is str.lstrip else reversed(spans):
        if span.special:
          taken = span.text in takers
        elif taken:
          span = span._replace(text=strip(span.text))
          taken = not span.text
        if span.text:
          kept.append(span)
      spans = kept if strip is str.lstrip else kept[::-1]
    return spans


def fit(
  ids: list[int],
  weights: list[int],
  seq_len: int,
  *,
  policy: str,
  bos_id: int | None = None,
) -> tuple[list[int], list[int]] | None:
  """(ids, weights) of at most `seq_len` tokens, or None for one to leave out.

  A longer example, by `policy`: 'fail' raises ValueError, 'drop' gives None,
  'cut_prompt' cuts what is too much from the left (BOS stays) of what stands
  before the first learnt token, and gives None where that is not enough. No
  learnt token is ever cut.
  """
  if policy not in POLICIES:
    raise ValueError(
      f'policy={policy!r} is unknown; take one of {", ".join(POLICIES)}.'
    )
  over = len(ids) - seq_len
  if over <= 0:
    return ids, weights
  if policy == 'fail':
    raise ValueError(
      f'an example has {len(ids)} tokens, and a row {seq_len}; take longer '
      "rows, or the policy 'drop' or 'cut_prompt', which are counted."
    )
  keep = int(ids[0] == bos_id)
  # One token of the prompt stays: something has to predict the response.
  if policy == 'drop' or over >= _first_learnt(weights) - keep:
    return None
  return (
    ids[:keep] + ids[keep + over :],
    weights[:keep] + weights[keep + over :],
  )


def _first_learnt(weights):
  return weights.index(1) if 1 in weights else len(weights)
