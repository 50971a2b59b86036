"""Small files of exams, as their authors publish them."""

import json

CONTEXT = 'Tim has 3 cups. Lily has none.'
TIM = {
  'id': 'q1',
  'question': 'Who has cups?',
  'answers': [{'text': 'Tim', 'answer_start': 0}],
}


def write_mmlu(folder, subject='college_physics', answers='ABCDA'):
  """Five demonstrations and three questions; a comma and a quoted line."""
  for split in ('dev', 'test'):
    (folder / split).mkdir(parents=True, exist_ok=True)
  (folder / 'dev' / f'{subject}_dev.csv').write_text(
    ''.join(
      f'Shot {i}?,a{i},b{i},c{i},d{i},{x}\n' for i, x in enumerate(answers)
    )
  )
  (folder / 'test' / f'{subject}_test.csv').write_text(
    ' How far is it? ,1 m,2 m,0.50,4 m,C\n'
    '"Two lines,\nand a comma?",w,x,y,z,A\n'
    'Which?,"a ""quoted"" one",b,c,d,D\n'
  )
  return folder


def write_ceval(folder, subject='law'):
  for split in ('dev', 'val'):
    (folder / split).mkdir(parents=True, exist_ok=True)
  (folder / 'dev' / f'{subject}_dev.csv').write_text(
    'id,question,A,B,C,D,answer,explanation\n'
    + ''.join(
      f'{i},例题{i},甲,乙,丙,丁,{x},略\n' for i, x in enumerate('ABCDA')
    )
  )
  (folder / 'val' / f'{subject}_val.csv').write_text(
    'id,question,A,B,C,D,answer\n'
    '0,天空是什么颜色？ ,蓝,红,黑,绿,A\n'
    '1,"一加一，等于几？",1,2,3,4,B\n'
    '2,哪个最大？,小,中,大,巨,D\n'
  )
  return folder


def write_squad(path, *questions, context=CONTEXT):
  passage = {'context': context, 'qas': list(questions)}
  whole = {'version': '1.1', 'data': [{'title': '', 'paragraphs': [passage]}]}
  path.write_text(json.dumps(whole, indent=1, ensure_ascii=False))
  return path
