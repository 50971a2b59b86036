"""A judge on the loopback address, as well or badly behaved as a test asks."""

import contextlib
import http.server
import json
import threading
import time

GOOD = json.dumps(
  dict(accuracy=2, fluency=3, informativeness=1, logicality=2, harmlessness=3)
)


class Server(http.server.ThreadingHTTPServer):
  """Keeps every request's body and headers, and counts those at one time.

  `behave(number, prompt)` gives what a request gets, by how often its first
  message has come before: the text of a reply, or a dict with `status`,
  `headers`, `body`, `delay_s`, or `drop`.
  """

  daemon_threads = True
  request_queue_size = 64

  def __init__(self, behave):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.behave = behave
    self.seen = []
    self.headers_seen = []
    self.times = []
    self.now = self.most = 0
    self.lock = threading.Lock()

  @property
  def url(self):
    return f'http://127.0.0.1:{self.server_port}/v1'

  def handle_error(self, request, client_address):
    pass  # a client that no longer waits


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def do_POST(self):
    server = self.server
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    prompt = body['messages'][0]['content']
    with server.lock:
      number = sum(b['messages'][0]['content'] == prompt for b in server.seen)
      server.seen.append({'path': self.path, **body})
      server.headers_seen.append(dict(self.headers))
      server.times.append(time.monotonic())
      server.now += 1
      server.most = max(server.most, server.now)
    told = server.behave(number, prompt)
    if isinstance(told, dict):
      time.sleep(told.get('delay_s', 0))
    # Before the reply: whoever has it may ask anew at once.
    with server.lock:
      server.now -= 1
    self._answer(told)

  def _answer(self, told):
    if isinstance(told, str):
      choice = {'message': {'content': told}, 'finish_reason': 'stop'}
      told = {'body': json.dumps({'choices': [choice]})}
    if told.get('drop'):
      self.close_connection = True
      return
    data = told['body'].encode()
    self.send_response(told.get('status', 200))
    self.send_header('Content-Length', str(told.get('length', len(data))))
    self.send_header('Connection', 'close')
    for name, value in told.get('headers', {}).items():
      self.send_header(name, value)
    self.end_headers()
    for byte in data if told.get('drips') else ():
      self.wfile.write(bytes([byte]))
      time.sleep(0.05)
    if not told.get('drips'):
      self.wfile.write(data)
    self.close_connection = True


@contextlib.contextmanager
def serving(behave):
  server = Server(behave)
  thread = threading.Thread(
    target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True
  )
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
