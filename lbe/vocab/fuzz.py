"""Texts on which two tokenizers are compared: what people write, and worse."""

import random
import unicodedata

# Sentences of several scripts, also decomposed and in other widths.
_LINES = """\
The ferry left at six, and by seven the coast was a thin grey line.
Prices rose by 3.5% in March; don't ask why — nobody knew.
清晨的集市已经热闹起来，卖豆腐的老人一边收钱一边和熟客聊天。
如果明天下雨，我們就把會議改到星期四下午３点１５分。
吾輩は猫である。名前はまだ無い。ﾊﾝｶｸｶﾅﾊﾞﾋﾟﾌﾟもある。
안녕하세요, 오늘은 날씨가 좋네요 ㅋㅋㅋ ㅠㅠ
في الصباح يفتح الخبّاز دكانه قبل أن تشرق الشمسُ.
Bà tôi thường kể chuyện về dòng sông chảy qua làng Nguyễn.
Ąžuolas, naïve café, Zürich, smørrebrød, Größe, œuvre, ﬁne ﬂow
सुबह की सैर के बाद वह क़लम से चिट्ठी लिखता है।
সকালে বাজারে মাছ কিনতে যাই। தமிழ் எழுத்து తెలుగు മലയാളം ગુજરાતી
בְּרֵאשִׁית Ωραία μέρα Ἀθῆναι привет ёлка йод
def area(r):\n\treturn 3.14159 * r ** 2  # m²
""".splitlines()
_SPACES = (
  *(' ', '  ', '   ', '\t', '\t\t', '\n', '\n\n', '\r\n', '\r', '\v', '\f'),
  *('\u3000', '\u00a0', '\u2003', '\u2009', '\u200b', '\u2028', '\u2029'),
  *('\u202f', '\u205f', '\u1680', '\x85', '\ufeff', '▁', ' ▁', '\n '),
)
_ODD = (
  *('\0', '\x01', '\x07', '\x08', '\x1b', '\x1f', '\x7f', '\x80', '\x9f'),
  *('\u200c', '\u200d', '\u200e', '\u202e', '\u2060', '\u00ad', '\ufffd'),
  *('e\u0301', 'Ａ\u0301', 'ｶﾞ', 'ﾊﾟ', 'か\u3099', 'ê\u0323', 'e\u0323\u0302'),
  *('\u1100\u1161\u11a8', 'ㄱㅏ', 'ⅷ', '㌔', '½', 'ﷺ', '①', '²', 'Å', 'Ω'),
  *('ＡＢＣ', '１２３', '，', '～', '“', '…', '‥', 'ﬃ', '\u0644\u0651\u064e'),
  *('👍🏽', '👨‍👩‍👧', '🇨🇳', '🏴󠁧󠁢󠁥󠁮󠁧󠁿', '❤️', '𝔘𝔫𝔦', '𠮷', 'ᚠ', '𐌰', '\ue000'),
  *('<s>', '</s>', '<unk>', '<pad>', '[PAD]', '<|im_start|>', '<|eot_id|>'),
  *('<0x0A>', '<0xE4>', '[INST]', '{{', '\\n', 'http://x.y/z?a=1&b=2'),
)


def texts(tokenizer) -> list[str]:
  """Over 2,000 texts, the same ones for the same tokenizer.

  Of its own pieces and characters, its control strings and added tokens, white
  space and control characters, odd characters, and lines of many scripts.
  """
  draw = random.Random(0)
  pieces, special = _vocabulary(tokenizer, draw)
  characters = sorted({c for piece in pieces for c in piece})
  whole = [*special, *_ODD]

  def mixed(*kinds, at_most):
    kinds = [kind for kind in kinds if kind]
    parts = draw.randint(1, at_most)
    return ''.join(draw.choice(draw.choice(kinds)) for _ in range(parts))

  result = ['', *_SPACES, *_ODD, *special[:50], *_LINES]
  result += [unicodedata.normalize('NFD', line) for line in _LINES]
  result += [line.replace(' ', draw.choice(_SPACES)) for line in _LINES]
  result += [' ' * n + end for n in (*range(1, 40), 100) for end in ('', 'a')]
  result += [f'a{" " * n}b' for n in range(2, 40)]
  result += [mixed(pieces, at_most=12) for _ in range(600)]
  result += [mixed(characters, at_most=16) for _ in range(300)]
  result += [mixed(pieces, _SPACES, at_most=10) for _ in range(300)]
  result += [mixed(pieces, whole, at_most=8) for _ in range(300)]
  result += [mixed(_ODD, _SPACES, characters, at_most=8) for _ in range(300)]
  result += [mixed(pieces, [str(x)], at_most=6) for x in range(1900, 2030)]
  result += [mixed(pieces, at_most=6) * 200 for _ in range(4)]
  result += [mixed(characters, at_most=1000) for _ in range(4)]
  return result


def _vocabulary(tokenizer, draw):
  """(some of the pieces as text, control strings and added tokens)."""
  special = {*tokenizer.specials, *(t.content for t in tokenizer.added)}
  silent = tokenizer.is_byte | (tokenizer.byte_lengths == 0)
  ids = [i for i in range(tokenizer.vocab_size) if not silent[i]]
  pieces = []
  for i in sorted(draw.sample(ids, min(len(ids), 4000))):
    text = tokenizer.piece(i)
    if tokenizer.kind == 'hf' and tokenizer.byte_level:
      text = tokenizer.decode([i])
    pieces.append(text.replace('▁', ' '))
  words = ' '.join(_LINES).split()
  return [p for p in pieces if p] or words, sorted(special)
