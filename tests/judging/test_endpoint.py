"""A judge over HTTP: a real server that behaves badly loses nothing."""

import datetime
import email.utils
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from lbe.judging import asked
from lbe.judging import endpoint
from lbe.judging import rubrics

import judge_server
import runs

GOOD = judge_server.GOOD
SETTINGS = dict(
  model='judge-1',
  key_env='',
  seed=3,
  max_new_tokens=50,
  request={},
  concurrency=4,
  requests_per_minute=0,
  timeout_s=5.0,
  max_tries=3,
  backoff_s=0.01,
)
SCORES = json.loads(GOOD)


def judge(base_url, **changes):
  return endpoint.Endpoint(base_url=base_url, **{**SETTINGS, **changes})


def ask(server, prompts, cache, *, max_asks=3, **changes):
  return asked.ask(
    judge(server.url, **changes),
    rubrics.load('paper'),
    prompts,
    cache=asked.Cache(cache),
    max_asks=max_asks,
  )


def test_what_is_asked(tmp_path):
  """Greedy, seeded, and with what the config adds or takes out."""
  with judge_server.serving(lambda n, p: GOOD) as server:
    (found,) = ask(
      server,
      ['How good?'],
      tmp_path / 'c.jsonl',
      request={'top_p': 0.5, 'max_tokens': None, 'max_completion_tokens': 9},
    )
  assert found == asked.Judged(SCORES, (GOOD,))
  assert server.seen == [
    {
      'path': '/v1/chat/completions',
      'model': 'judge-1',
      'temperature': 0,
      'seed': 3,
      'top_p': 0.5,
      'max_completion_tokens': 9,
      'messages': [{'role': 'user', 'content': 'How good?'}],
    }
  ]
  assert 'Authorization' not in server.headers_seen[0]


HALF = json.dumps({'choices': [{'message': {'content': GOOD}}]})[:-20]
TROUBLES = {
  '429': {'status': 429, 'body': 'slow down'},
  'retry-after': {'status': 429, 'body': '', 'headers': {'Retry-After': '0.1'}},
  '500': {'status': 500, 'body': 'oops'},
  '503': {'status': 503, 'body': '<html>', 'headers': {'Retry-After': 'soon'}},
  'dropped': {'drop': True},
  'slow': {'body': HALF, 'delay_s': 3.0},
  'cut': {'body': HALF, 'length': 10_000},
  'half JSON': {'body': HALF},
  'no JSON': {'body': 'hello'},
  'no choices': {'body': '{"choices": []}'},
  'other JSON': {'body': '[1]'},
}


@pytest.mark.parametrize('name', TROUBLES)
def test_what_may_pass_is_tried_again_and_nothing_is_lost(tmp_path, name):
  """Each request fails twice, and the third try is the last one."""
  prompts = [f'question {i}' for i in range(4)]
  timeout_s = 1.0 if name == 'slow' else 10.0

  def behave(number, prompt):
    return TROUBLES[name] if number < 2 else GOOD

  with judge_server.serving(behave) as server:
    found = ask(server, prompts, tmp_path / 'c.jsonl', timeout_s=timeout_s)
    assert found == [asked.Judged(SCORES, (GOOD,))] * 4
    assert len(server.seen) == 12
    # And the same with one try too few: counted, and asked in a later run.
    found = ask(
      server,
      ['another'],
      tmp_path / 'c.jsonl',
      timeout_s=timeout_s,
      max_tries=2,
    )
    assert (found[0].scores, found[0].unanswered) == (None, True)
    assert '(2 tries)' in found[0].failure
    assert len(server.seen) == 14
    found = ask(server, ['another'], tmp_path / 'c.jsonl', timeout_s=timeout_s)
    assert found[0].scores == SCORES
    assert len(server.seen) == 15


def test_a_server_that_is_not_there_is_counted(tmp_path):
  with judge_server.serving(lambda n, p: GOOD) as server:
    pass
  found = ask(server, ['a', 'b'], tmp_path / 'c.jsonl')
  assert [j.unanswered for j in found] == [True, True]
  assert 'ConnectionRefusedError' in found[0].failure
  assert not (tmp_path / 'c.jsonl').exists()


def test_a_server_that_is_down_for_good_is_given_up_on(tmp_path):
  """The rest counts as unanswered, and a later run asks it."""
  prompts = [str(i) for i in range(60)]
  up = False

  def behave(number, prompt):
    return GOOD if up or prompt == '0' else {'status': 500, 'body': 'down'}

  with judge_server.serving(behave) as server:
    found = ask(server, prompts, tmp_path / 'c.jsonl', max_tries=1)
    assert [j.unanswered for j in found] == [False] + [True] * 59
    assert 20 <= len(server.seen) < 60
    assert found[-1].failure == (
      'not asked: 20 requests in a row had failed, the last with status 500: '
      'down (1 tries)'
    )
    up = True
    found = ask(server, prompts, tmp_path / 'c.jsonl')
  assert [j.scores for j in found] == [SCORES] * 60


def test_retry_after_holds_back_every_request(tmp_path):
  """A server that asks for a pause gets one, from all threads."""

  def behave(number, prompt):
    if prompt == 'first' and not number:
      return {'status': 429, 'body': '', 'headers': {'Retry-After': '0.5'}}
    return GOOD

  with judge_server.serving(behave) as server:
    found = ask(
      server, ['first', 'second', 'third'], tmp_path / 'c.jsonl', concurrency=1
    )
  assert all(j.scores == SCORES for j in found)
  assert server.times[1] - server.times[0] >= 0.5


def test_retry_after_in_its_forms():
  def read(told):
    return endpoint._retry_after({} if told is None else {'Retry-After': told})

  now = datetime.datetime.now(datetime.UTC)
  later = email.utils.format_datetime(now + datetime.timedelta(seconds=30))
  assert 25 < read(later) <= 30
  assert read('2') == 2.0
  assert read('1e9') == read('inf') == endpoint.MAX_WAIT_S
  assert read('-3') == read('nan') == 0.0
  assert read('soon') is read(None) is None


@pytest.mark.parametrize('status', [302, 307, 400, 401, 404, 422])
def test_a_refusal_ends_with_its_status_and_body(tmp_path, status):
  """And keeps what was answered; a wrong key is not tried a thousand times."""
  told = {
    'status': status,
    'body': 'no such model',
    'headers': {'Location': 'http://127.0.0.1:9/'},
  }

  def behave(number, prompt):
    return GOOD if prompt == 'fine' else told

  prompts = ['fine', *(f'bad {i}' for i in range(30))]
  cache = tmp_path / 'c.jsonl'
  with judge_server.serving(behave) as server:
    with pytest.raises(
      ValueError, match=f"'judge-1' with status {status}: no such model"
    ):
      ask(server, prompts, cache, concurrency=2)
    assert len(server.seen) <= 6
  assert asked.Cache(cache)[_key(server, 'fine')] == (GOOD,)


def test_a_refusal_stops_the_others_while_a_reply_is_written():
  """Whoever reads the replies may be slow; a wrong key is tried no more."""

  def behave(number, prompt):
    return GOOD if prompt == 'fine' else {'status': 401, 'body': 'no'}

  talks = [
    [{'role': 'user', 'content': p}] for p in ('fine', *map(str, range(30)))
  ]
  with judge_server.serving(behave) as server:
    replies = judge(server.url, concurrency=1).replies(talks)
    next(replies)
    deadline = time.monotonic() + 1.0  # the reader is at its disk
    while time.monotonic() < deadline and len(server.seen) < len(talks):
      time.sleep(0.02)
    assert len(server.seen) == 2
    with pytest.raises(ValueError, match='status 401: no'):
      list(replies)


def _key(server, prompt, **changes):
  return asked.key(judge(server.url, **changes), rubrics.load('paper'), prompt)


def test_no_more_requests_at_a_time_than_asked_for(tmp_path):
  """And as many, else waiting for a slow judge would take all day."""
  choice = {'message': {'content': GOOD}}
  slow = {'delay_s': 0.2, 'body': json.dumps({'choices': [choice]})}
  with judge_server.serving(lambda n, p: slow) as server:
    ask(server, [str(i) for i in range(12)], tmp_path / 'c.jsonl')
    assert server.most == 4


def test_requests_per_minute_are_spaced(tmp_path):
  start = time.monotonic()
  with judge_server.serving(lambda n, p: GOOD) as server:
    ask(
      server,
      [str(i) for i in range(6)],
      tmp_path / 'c.jsonl',
      requests_per_minute=600,
    )
  assert time.monotonic() - start >= 0.5  # five gaps of 0.1 s


def test_a_reply_that_is_no_scores_is_answered_with_the_reason(tmp_path):
  """Bounded; then counted, with every raw reply kept and none made up."""
  bad = GOOD.replace('2', '7', 1)

  def behave(number, prompt):
    if prompt == 'mends':
      return bad if number == 0 else GOOD
    return ['sorry', GOOD[:30], ''][number]

  with judge_server.serving(behave) as server:
    mends, never = ask(server, ['mends', 'never'], tmp_path / 'c.jsonl')
    assert mends == asked.Judged(SCORES, (bad, GOOD))
    assert never.scores is None and not never.unanswered
    assert never.replies == ('sorry', GOOD[:30], '')
    assert never.failure == 'there is no score in the reply'
    assert len(server.seen) == 5
    (again,) = [
      b['messages']
      for b in server.seen
      if b['messages'][0]['content'] == 'mends' and len(b['messages']) > 1
    ]
    assert [m['role'] for m in again] == ['user', 'assistant', 'user']
    assert again[1]['content'] == bad
    assert (
      'accuracy is 7, and the scale goes from 0 to 3' in (again[2]['content'])
    )
    # Nothing is asked twice, also not what failed; one more ask is one more.
    ask(server, ['mends', 'never'], tmp_path / 'c.jsonl')
    assert len(server.seen) == 5


def test_a_server_that_drips_or_sends_no_message_is_asked_again(tmp_path):
  """Each byte in time, and the reply never."""

  def behave(number, prompt):
    if prompt == 'drips':
      return {'body': 'x' * 100, 'drips': True}
    return {'body': json.dumps({'choices': [{'message': None}]})}

  with judge_server.serving(behave) as server:
    drips, null = ask(
      server,
      ['drips', 'null'],
      tmp_path / 'c.jsonl',
      timeout_s=0.3,
      max_tries=1,
    )
  assert 'no whole reply within 0.3 s' in drips.failure
  assert 'status 200 with the body' in null.failure


def test_content_that_is_null_or_odd_is_a_reply_without_scores(tmp_path):
  """A filtered reply is none, and half a surrogate pair can be written."""

  def behave(number, prompt):
    content = None if prompt == 'null' else '\ud83d'
    return {
      'body': json.dumps({'choices': [{'message': {'content': content}}]})
    }

  with judge_server.serving(behave) as server:
    found = ask(server, ['null', 'odd'], tmp_path / 'c.jsonl', max_asks=1)
  assert [j.replies for j in found] == [('',), ('?',)]
  assert not any(j.unanswered for j in found)


def test_the_same_prompt_is_asked_once(tmp_path):
  with judge_server.serving(lambda n, p: GOOD) as server:
    found = ask(server, ['a', 'b', 'a', 'a'], tmp_path / 'c.jsonl')
    assert [j.scores for j in found] == [SCORES] * 4
    assert len(server.seen) == 2


def test_a_key_of_judge_rubric_and_prompt():
  """What moves a reply moves its key; what does not, does not."""
  paper, stars = rubrics.load('paper'), rubrics.load('llmeval1')
  one = judge('http://a/v1')
  keys = [
    asked.key(one, paper, 'x'),
    asked.key(one, paper, 'y'),
    asked.key(one, stars, 'x'),
    asked.key(judge('http://b/v1'), paper, 'x'),
    asked.key(judge('http://a/v1', model='judge-2'), paper, 'x'),
    asked.key(judge('http://a/v1', seed=4), paper, 'x'),
    asked.key(judge('http://a/v1', request={'top_p': 1}), paper, 'x'),
  ]
  assert len(set(keys)) == len(keys)
  assert asked.key(judge('http://a/v1', concurrency=1), paper, 'x') == keys[0]


def test_a_torn_last_line_is_asked_again_and_the_others_are_not(tmp_path):
  cache = tmp_path / 'c.jsonl'
  prompts = ['a', 'b', 'c']
  with judge_server.serving(lambda n, p: GOOD) as server:
    ask(server, prompts, cache, concurrency=1)
    data = cache.read_bytes()
    cache.write_bytes(data[:-9])
    found = ask(server, prompts, cache, concurrency=1)
    assert [j.scores for j in found] == [SCORES] * 3
    assert len(server.seen) == 4
  assert cache.read_bytes() == data


KILLED = """
import sys
sys.path[:0] = ['tests', 'tests/judging']
import pathlib
import test_endpoint as t
class server:
  url = sys.argv[1]
t.ask(server, [str(i) for i in range(20)], pathlib.Path(sys.argv[2]),
      concurrency=2)
"""


def test_a_killed_evaluation_goes_on_where_it_stood(tmp_path):
  """Only what was under way is asked again; nothing that is on disk."""
  cache = tmp_path / 'c.jsonl'
  choice = {'message': {'content': GOOD}}
  slow = {'delay_s': 0.1, 'body': json.dumps({'choices': [choice]})}
  with judge_server.serving(lambda n, p: slow) as server:
    process = subprocess.Popen(
      [sys.executable, '-c', KILLED, server.url, str(cache)],
      cwd=runs.ROOT,
      env={**os.environ, 'PYTHONPATH': str(runs.ROOT)},
    )
    while len(server.seen) < 9:
      assert process.poll() is None
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(cache.read_bytes().splitlines())
    before = len(server.seen)
    assert 5 <= kept <= before < 20
    found = ask(server, [str(i) for i in range(20)], cache)
    assert [j.scores for j in found] == [SCORES] * 20
    assert len(server.seen) - before == 20 - kept
    assert before - kept <= 3


def test_a_file_that_is_no_cache_is_refused(tmp_path):
  path = tmp_path / 'c.jsonl'
  path.write_text('{"key": "a", "reply": "b"}\nhello\n')
  with pytest.raises(ValueError, match='c.jsonl:2: invalid JSON'):
    asked.Cache(path)
  path.write_text('{"id": "a", "response": "b"}\n')
  with pytest.raises(ValueError, match="c.jsonl:1: the field 'key' is missing"):
    asked.Cache(path)


def test_a_missing_key_is_named_before_anything_is_asked(monkeypatch):
  monkeypatch.delenv('MY_JUDGE_KEY', raising=False)
  with pytest.raises(ValueError, match='export MY_JUDGE_KEY=…'):
    judge('http://a/v1', key_env='MY_JUDGE_KEY')
  for broken in ('sk-one\nsk-two', 'sk-one two', 'sk-ключ'):
    monkeypatch.setenv('MY_JUDGE_KEY', broken)
    with pytest.raises(ValueError, match='white space inside') as told:
      judge('http://a/v1', key_env='MY_JUDGE_KEY')
    assert 'sk-' not in str(told.value)
  monkeypatch.setenv('MY_JUDGE_KEY', ' ')
  with pytest.raises(ValueError, match='key is not set'):
    judge('http://a/v1', key_env='MY_JUDGE_KEY')


def test_the_key_goes_into_the_header_and_nowhere_else(tmp_path, monkeypatch):
  """A server that says it back does not get it into a file or an error."""
  secret = 'sk-secret-0123456789'
  monkeypatch.setenv('MY_JUDGE_KEY', secret)

  def behave(number, prompt):
    if prompt == 'refused':
      return {'status': 401, 'body': f'Incorrect API key: {secret}'}
    if prompt == 'broken':
      return {'status': 500, 'body': f'key {secret}'}
    return f'Your key is {secret}. {GOOD}'

  cache = tmp_path / 'c.jsonl'
  with judge_server.serving(behave) as server:
    fine, broken = ask(
      server, ['fine', 'broken'], cache, key_env='MY_JUDGE_KEY'
    )
    assert {h['Authorization'] for h in server.headers_seen} == {
      f'Bearer {secret}'
    }
    assert fine.scores == SCORES
    assert 'status 500: key [key]' in broken.failure
    with pytest.raises(ValueError, match=re.escape('API key: [key]')):
      ask(server, ['refused'], cache, key_env='MY_JUDGE_KEY')
  told = f'{fine}{broken}{judge("http://a", key_env="MY_JUDGE_KEY").identity}'
  assert secret not in told + cache.read_text()


@pytest.mark.parametrize(
  'changes, why',
  [
    ({'base_url': 'api.openai.com/v1'}, 'is no address'),
    ({'base_url': 'file:///etc'}, 'is no address'),
    ({'base_url': 'https://me:pw@host/v1'}, 'a user, a password or a query'),
    ({'base_url': 'https://host/v1?key=1'}, 'a user, a password or a query'),
    ({'model': ''}, "judge.model='': name the model"),
    ({'concurrency': 0}, 'concurrency=0 is below 1'),
    ({'max_tries': 0}, 'max_tries=0 is below 1'),
    ({'max_new_tokens': 0}, 'judge.max_new_tokens=0 is below 1'),
    ({'requests_per_minute': -1}, 'requests_per_minute=-1 is below 0'),
    ({'timeout_s': 0}, 'timeout_s=0 is not above 0'),
  ],
)
def test_settings_out_of_range(changes, why):
  with pytest.raises(ValueError, match=why):
    judge(**{'base_url': 'http://a/v1', **changes})
