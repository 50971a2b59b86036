"""MGSM: prompts, numbers in any script, and the harness's own answers."""

import pytest

from lbe.exams import item
from lbe.exams import mgsm


@pytest.mark.parametrize(
  ('text', 'language', 'value'),
  [
    ('It is 18.', 'en', '18'),
    ('9 * 2 = $18.00 every day', 'en', '18'),
    ('no number', 'en', None),
    ('from 3 to 5, then -4', 'en', '-4'),
    ('10-3', 'en', '3'),  # a dash is no sign
    ('৭০,০০০ ডলার', 'bn', '70000'),
    ('১,১৪,২০০', 'bn', '114200'),  # by lakhs
    ('సమాధానం ౧౮', 'te', '18'),
    ('उत्तर १२', '', '12'),
    ('答案是１８。', 'zh', '18'),
    ('共 ２，１２５ 元', 'zh', '2125'),
    ('٢٬١٢٥٫٥', '', '2125.5'),
    ('−5', 'en', '-5'),
    ('25 m²', 'en', '25'),  # a power is no digit
    ('2,125', 'en', '2125'),
    ('2.125', 'en', '2.125'),
    ('2.125', 'de', '2125'),
    ('2,125', 'de', '2.125'),
    ('2,5', 'en', '2.5'),
    ('1.114.200', 'en', '1114200'),  # cannot be understood otherwise
    ('1,114,200', 'de', '1114200'),
    ('1.114,50', 'en', '1114.5'),
    ('0,125', 'en', '0.125'),
    ('3,4,5', 'en', '5'),
    ('12.05.2020', 'de', '2020'),
    ('70 000 roubles', 'ru', '70000'),
    ('70 000', 'en', '0'),
    ('70\u00a0000', 'en', '70000'),
  ],
)
def test_numbers_are_read_by_their_value(text, language, value):
  found = mgsm.last_number(text, language)
  assert found == (value and mgsm.decimal.Decimal(value))


def test_readings_of_one_answer():
  """What the harness calls right, and what it cannot read."""
  q = item.Question('bn/0', 'bn', 'bn', '', '70000')
  for text, ours, flexible, whole in (
    (' 70,000', 1, 1, 1),
    ('৭০,০০০', 1, 0, 0),
    (' it is 70000.', 1, 1, 0),
    ('70000.00', 1, 0, 0),
    ('-70000', 0, 1, 1),  # marks are not compared there
    ('', 0, 0, 0),
  ):
    assert mgsm.grade(q, text)[1] == ours, text
    assert mgsm.lmeval_flexible_extract(q, text) == flexible, text
    assert mgsm.lmeval_remove_whitespace(q, text) == whole, text
  assert mgsm.grade(q, '৭০,০০০')[0] == '70000'


def test_a_folder_of_languages(tmp_path):
  (tmp_path / 'mgsm_sw.tsv').write_text('Moja na mbili?\t3\nNne?\t1,004\n')
  (tmp_path / 'mgsm_zh.tsv').write_text('一加二？\t3\n')
  first, second, third = mgsm.questions(tmp_path, subjects=(), limit=0)
  assert first.prompt == 'Swali: Moja na mbili?\nAnswer:'
  assert (second.id, second.gold) == ('sw/1', '1004')
  assert third.prompt == '问题： 一加二？\nAnswer:'
  assert third.stop == ('问题：', '</s>', '<|im_end|>')


@pytest.mark.parametrize(
  ('line', 'subject', 'told'),
  [
    ('Moja?\t1', 'te', "no subject 'te'; it has sw"),
    ('Moja?', 'sw', 'mgsm_sw.tsv, line 1: 1 values for the 2 columns'),
    ('Moja?\tmoja', 'sw', "mgsm_sw.tsv, line 1: the answer 'moja' is no whole"),
    ('Moja?\t1\t2', 'sw', 'mgsm_sw.tsv, line 1: 3 values for the 2 columns'),
  ],
)
def test_what_is_no_file_of_mgsm_is_told(tmp_path, line, subject, told):
  (tmp_path / 'mgsm_sw.tsv').write_text(f'{line}\n')
  with pytest.raises(ValueError, match=told):
    mgsm.questions(tmp_path, subjects=(subject,), limit=0)


def test_a_folder_without_mgsm_is_told(tmp_path):
  with pytest.raises(ValueError, match='none of MGSM.s files: mgsm_en.tsv'):
    mgsm.questions(tmp_path, subjects=(), limit=0)
  with pytest.raises(ValueError, match='is no folder'):
    mgsm.questions(tmp_path / 'mgsm', subjects=(), limit=0)
