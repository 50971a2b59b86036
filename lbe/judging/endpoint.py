"""A judge behind an OpenAI-compatible endpoint, asked over HTTP.

Requests go out side by side, at most `concurrency` at a time and
`requests_per_minute`. What may pass is tried again, `max_tries` times in all:
connections that break, timeouts, replies that are not whole, and the statuses
408, 429 and 5xx. A Retry-After holds back all requests. Any other status ends
the evaluation. The key comes from the environment and goes into one header; it
is taken out of whatever the server says.
"""

import concurrent.futures
import datetime
import email.utils
import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from lbe.judging import asked

# No wait is longer, whatever the server asks for.
MAX_WAIT_S = 120.0
# After so many requests in a row that failed for good nothing more is asked:
# a server that is down should not hold up a run for hours.
MAX_FAILED_IN_A_ROW = 20
# A reply is no longer.
_MOST_BYTES = 1 << 24
# Of a body in an error message.
_MAX_TOLD = 500


class Endpoint:
  """A judge as `asked.ask` sees it; `identity` is what its replies hang on."""

  def __init__(
    self,
    *,
    base_url,
    model,
    key_env,
    seed,
    max_new_tokens,
    request,
    concurrency,
    requests_per_minute,
    timeout_s,
    max_tries,
    backoff_s,
  ):
    """Raises ValueError for settings out of range, and a key that is not set.

    `request` are more fields of the request, as {'top_p': 1}; None takes a
    field out. With key_env='' no key is sent.
    """
    address = urllib.parse.urlsplit(base_url)
    if address.scheme not in ('http', 'https') or not address.hostname:
      raise ValueError(
        f"judge.base_url={base_url!r} is no address; give it up to '/v1', as "
        'https://api.openai.com/v1.'
      )
    if '@' in address.netloc or address.query:
      raise ValueError(
        'judge.base_url has a user, a password or a query in it, which would '
        'be written to config.json; put the key in an environment variable and '
        'its name in judge.key_env.'
      )
    if not model:
      raise ValueError(
        "judge.model='': name the model that judges, as the endpoint knows it."
      )
    for name, value, least in (
      ('concurrency', concurrency, 1),
      ('max_tries', max_tries, 1),
      ('max_new_tokens', max_new_tokens, 1),
      ('requests_per_minute', requests_per_minute, 0),
      ('backoff_s', backoff_s, 0),
    ):
      if value < least:
        raise ValueError(f'judge.{name}={value} is below {least}.')
    if timeout_s <= 0:
      raise ValueError(f'judge.timeout_s={timeout_s} is not above 0.')
    self._url = base_url.rstrip('/') + '/chat/completions'
    self._key = _key(key_env)
    self._settings = {
      'model': model,
      'temperature': 0,
      'seed': seed,
      'max_tokens': max_new_tokens,
      **request,
    }
    self.name = model
    self.identity = {'url': self._url, 'request': self._settings}
    self._concurrency = concurrency
    self._gap_s = 60 / requests_per_minute if requests_per_minute else 0.0
    self._timeout_s = timeout_s
    self._max_tries = max_tries
    self._backoff_s = backoff_s
    # A redirect would carry the key to another address.
    self._opener = urllib.request.build_opener(_NoRedirect)

  def replies(self, conversations):
    """Yields (index, asked.Reply) as they come.

    Raises ValueError for a refusal, after the replies of the requests that
    were under way.
    """
    stop, pace = threading.Event(), _Pace(self._gap_s)
    refusal, failed, unasked, last = None, 0, [], ''
    with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
      futures = {
        pool.submit(self._ask, messages, stop, pace): i
        for i, messages in enumerate(conversations)
      }
      try:
        for future in concurrent.futures.as_completed(futures):
          error = future.exception()
          if error is not None:
            refusal = refusal or error
            stop.set()
            continue
          reply = future.result()
          if reply is None:
            unasked.append(futures[future])
            continue
          failed = failed + 1 if reply.error else 0
          last = reply.error or last
          if failed >= MAX_FAILED_IN_A_ROW:
            stop.set()
          yield futures[future], reply
      finally:
        stop.set()
    if refusal is not None:
      raise refusal
    for i in unasked:
      yield (
        i,
        asked.Reply(
          error=f'not asked: {MAX_FAILED_IN_A_ROW} requests in a row had '
          f'failed, the last with {last}'
        ),
      )

  def _ask(self, messages, stop, pace):
    """The reply to a conversation; None where the others are to stop."""
    data = json.dumps(
      {
        name: value
        for name, value in {**self._settings, 'messages': messages}.items()
        if value is not None
      }
    ).encode()
    # The jitter is that of the request, so that a run can be repeated.
    jitter = random.Random(data)
    problem = ''
    for number in range(self._max_tries):
      pace.wait(stop)
      if stop.is_set():
        return None
      wait_s = self._backoff_s * 2**number * (1 + jitter.random())
      wait_s = min(wait_s, MAX_WAIT_S)
      try:
        status, headers, body = self._send(data)
      except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, 'reason', error)
        problem = self._clean(f'{type(reason).__name__}: {reason}')
      else:
        if status == 200:
          try:
            return _reply(body)
          except (ValueError, LookupError, TypeError, AttributeError):
            problem = f'status 200 with the body {body[:_MAX_TOLD]!r}'
        elif status in (408, 429) or status >= 500:
          problem = f'status {status}: {body[:_MAX_TOLD]}'
          told_s = _retry_after(headers)
          if told_s is not None:
            pace.hold(told_s)
            continue
        else:
          # At once: whoever reads the replies may be writing one to disk.
          stop.set()
          raise ValueError(
            f'{self._url} refused the judge {self.name!r} with status '
            f'{status}: {body[:_MAX_TOLD]}'
          )
      if number + 1 < self._max_tries:
        stop.wait(wait_s)
    return asked.Reply(error=f'{problem} ({self._max_tries} tries)')

  def _send(self, data):
    headers = {'Content-Type': 'application/json'}
    if self._key:
      headers['Authorization'] = f'Bearer {self._key}'
    request = urllib.request.Request(
      self._url, data=data, headers=headers, method='POST'
    )
    until = time.monotonic() + self._timeout_s
    try:
      with self._opener.open(request, timeout=self._timeout_s) as response:
        return response.status, response.headers, self._text(response, until)
    except urllib.error.HTTPError as error:
      with error:
        return error.code, error.headers, self._text(error, until)

  def _text(self, response, until):
    """The body; TimeoutError for one that drips, ValueError for no reply."""
    body = b''
    while part := response.read1(1 << 16):
      body += part
      if time.monotonic() > until:
        raise TimeoutError(f'no whole reply within {self._timeout_s:g} s')
      if len(body) > _MOST_BYTES:
        raise OSError(f'a reply of more than {_MOST_BYTES:,} bytes')
    return self._clean(body.decode('utf-8', 'replace'))

  def _clean(self, text):
    return text.replace(self._key, '[key]') if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  def redirect_request(self, *_):
    return None


class _Pace:
  """When the next request may go out, over all threads."""

  def __init__(self, gap_s):
    self._gap_s = gap_s
    self._next = time.monotonic()
    self._lock = threading.Lock()

  def wait(self, stop):
    with self._lock:
      now = time.monotonic()
      start = max(now, self._next)
      self._next = start + self._gap_s
    stop.wait(start - now)

  def hold(self, seconds):
    with self._lock:
      self._next = max(self._next, time.monotonic() + seconds)


def _key(key_env):
  if not key_env:
    return ''
  key = os.environ.get(key_env, '').strip()
  if not key:
    raise ValueError(
      f"the judge's key is not set; export {key_env}=…, name another variable "
      "in judge.key_env, or set it to '' for an endpoint that asks for none."
    )
  if not re.fullmatch('[!-~]+', key):
    raise ValueError(  # which would be told with the header that holds it
      f'the key in {key_env} has white space inside or what is not ASCII, as '
      'of a line that broke in copying; export it anew.'
    )
  return key


def _reply(body):
  """A Reply of a whole answer; raises what is no such answer."""
  choice = json.loads(body)['choices'][0]
  text = choice['message'].get('content')
  if not isinstance(text, str | None):
    raise TypeError('content is no text')
  # Half of a surrogate pair cannot be written to a file.
  text = (text or '').encode('utf-8', 'replace').decode()
  return asked.Reply(text, str(choice.get('finish_reason') or ''))


def _retry_after(headers):
  """Seconds to wait, at most MAX_WAIT_S; None where the server told none."""
  told = headers.get('Retry-After')
  if told is None:
    return None
  try:
    seconds = float(told)
  except ValueError:
    try:
      then = email.utils.parsedate_to_datetime(told)
    except ValueError:
      return None
    if then.tzinfo is None:
      then = then.replace(tzinfo=datetime.UTC)
    seconds = (then - datetime.datetime.now(datetime.UTC)).total_seconds()
  # Also for 'nan': a comparison with it is never true.
  return min(seconds, MAX_WAIT_S) if seconds > 0 else 0.0
