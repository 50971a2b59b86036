"""Exact match and F1 as the official scripts have them."""

import pytest

from lbe.exams import answers

# What the scripts themselves said, run on these (SQuAD's evaluate-v2.0.py,
# mlqa_evaluation_v1.py, cmrc2018_evaluate.py under Python 3).
OFFICIAL = [
  ('squad2', 'en', 'The cat, sat.', ['a CAT sat'], 1, 1),
  ('squad2', 'en', 'red cat', ['cat', 'dog'], 0, 2 / 3),
  ('squad2', 'en', '“cat”', ['cat'], 0, 0),  # ASCII punctuation alone
  ('squad2', 'en', 'well-known', ['wellknown'], 1, 1),
  ('squad2', 'en', '', [''], 1, 1),  # a question without an answer
  ('squad2', 'en', 'cat', [''], 0, 0),
  ('squad2', 'en', 'the', ['The', 'cat'], 0, 0),
  ('squad1', 'en', 'the', ['The', 'cat'], 1, 0),
  ('squad1', 'en', '', [''], 1, 0),
  ('mlqa', 'ar', 'في المدينة', ['مدينة'], 0, 2 / 3),
  ('mlqa', 'ar', 'بالمدينة الكبيرة', ['مدينة كبيرة'], 0, 0.8),
  ('mlqa', 'ar', 'والد', ['ود'], 0, 0),
  ('mlqa', 'ar', 'الكتاب', ['كتاب'], 1, 1),
  ('mlqa', 'de', 'Das „Haus“', ['ein Haus'], 1, 1),
  ('mlqa', 'es', 'la casa', ['una CASA'], 1, 1),
  ('mlqa', 'zh', '人民中国', ['中国人民'], 0, 1),
  ('cmrc', 'zh', '人民中国', ['中国人民'], 0, 0.5),
  ('cmrc', 'zh', '1959年的文章', ['1959年的一篇文章中'], 0, 0.4615384615384615),
  ('cmrc', 'zh', '《战国无双3》', ['战国无双3'], 1, 1),
  ('cmrc', 'zh', '在 iPhone 6s 上', ['iPhone 6s'], 0, 2 / 3),
  ('cmrc', 'zh', 'A-B，C', ['ab c'], 0, 0),
  ('cmrc', 'zh', '“他”说', ['他', '他说'], 1, 1),
  ('cmrc', 'zh', '光荣和ω-force开发', ['ω-force'], 0, 0.2857142857142857),
  ('cmrc', 'zh', '', [''], 1, 0),
  ('cmrc', 'zh', "it's 3.5%", ["It's 3.5 %"], 0, 1),
  # No script's.
  ('words', '', '我是猫。', ['我 是 狗'], 0, 2 / 3),
  ('words', '', 'The cat, sat.', ['a CAT sat'], 1, 1),
  ('words', '', '', [''], 1, 1),
  ('words', 'ja', '“猫”', ['猫'], 1, 1),
]


@pytest.mark.parametrize(
  ('script', 'language', 'response', 'references', 'exact', 'f1'), OFFICIAL
)
def test_scores_are_those_of_the_official_scripts(
  script, language, response, references, exact, f1
):
  found = answers.score(response, tuple(references), script, language)
  assert found == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
  ('language', 'file'),
  [
    ('en', 'src.eng'),
    ('zh', 'ref.zho-CN'),
    ('hi', 'ref.hin'),
    ('vi', 'ref.vie'),
  ],
)
def test_f1_and_exact_match_are_those_of_mlqa(test_data, language, file):
  """Articles, punctuation, Chinese: each has its rule by language."""
  from lm_eval.tasks.mlqa import utils as mlqa

  path = test_data / 'text_ntrex' / f'newstest2019-{file}.txt'
  lines = path.read_text('utf-8').split('\n')[:200]
  for one, other in zip(lines, lines[1:], strict=False):
    for text in (other, one.upper(), f'“{one}”!', one[: len(one) // 2], ''):
      exact, f1 = answers.score(text, (one,), 'mlqa', language)
      assert f1 == pytest.approx(mlqa.f1_score(text, one, language))
      assert exact == mlqa.exact_match_score(text, one, language)


def test_a_language_has_its_script():
  of = {code: answers.choose('', code) for code in ('en', 'ar', 'zh', 'ja', '')}
  assert of == dict(en='squad2', ar='mlqa', zh='cmrc', ja='words') | {
    '': 'words'
  }
  assert answers.choose('squad1', 'en') == 'squad1'
  with pytest.raises(ValueError, match="f1_script='rouge' is unknown; ta"):
    answers.choose('rouge', 'en')
  with pytest.raises(ValueError, match="'mlqa' knows the languages .*'ja'"):
    answers.choose('mlqa', 'ja')
