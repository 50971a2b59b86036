"""A headless Chromium that looks at pages and says what is wrong with them."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
# Wider than the window, and in nothing that scrolls by itself.
_WIDE = """(() => {
  const inside = e => {
    for (let a = e; a; a = a.parentElement)
      if (getComputedStyle(a).overflowX !== 'visible' && a !== document.body &&
          a !== document.documentElement) return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll('*')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && box.left < innerWidth &&
      getComputedStyle(e).visibility === 'visible' && !inside(e);
  });
  const over = document.documentElement.scrollWidth - innerWidth;
  return [over > 0 ? `the page, by ${over}` : '', ...wide.slice(0, 3).map(
    e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`)].filter(x => x);
})()"""


class Browser:
  """One Chromium with one tab, spoken to through two pipes."""

  def __init__(self, profile):
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    # Chromium reads commands from 3 and answers on 4.
    command = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    self._process = subprocess.Popen(
      ['bash', '-c', command, 'bash', CHROMIUM, '--headless', '--no-sandbox',
       '--disable-gpu', '--hide-scrollbars', '--remote-debugging-pipe',
       f'--user-data-dir={profile}', 'about:blank'],
      pass_fds=(their_in, their_out),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_in)
    os.close(their_out)
    self._out, self._in = our_out, our_in
    self._number, self._buffer, self._events = 0, b'', []
    self._session = None
    (target,) = (
      x['targetId']
      for x in self('Target.getTargets')['targetInfos']
      if x['type'] == 'page'
    )
    self._session = self(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self(f'{domain}.enable')

  def _read(self):
    while b'\0' not in self._buffer:
      ready, _, _ = select.select([self._in], [], [], 60)
      got = os.read(self._in, 1 << 20) if ready else b''
      if not got:
        raise RuntimeError('Chromium ended, or was silent for a minute')
      self._buffer += got
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)

  def __call__(self, method, **params):
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._out, json.dumps(message).encode() + b'\0')
    while (got := self._read()).get('id') != self._number:
      self._events.append(got)
    if 'error' in got:
      raise RuntimeError(f'{method}: {got["error"]}')
    return got['result']

  def run(self, script):
    """The value of a script in the page, once its promise is kept."""
    got = self(
      'Runtime.evaluate',
      expression=script,
      awaitPromise=True,
      returnByValue=True,
    )
    return got['result'].get('value')

  def look(self, url, width, *, dark=False, wait=0.0):
    """(faults, addresses that were asked for) of a page, once it stands."""
    self(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=900,
      deviceScaleFactor=1,
      mobile=False,
    )
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else ''}
    self('Emulation.setEmulatedMedia', features=[scheme])
    self._events.clear()
    self('Page.navigate', url=url)
    while not any(x['method'] == 'Page.loadEventFired' for x in self._events):
      self._events.append(self._read())
    time.sleep(wait)
    faults = self.run(_WIDE)
    asked = []
    for event in self._events:
      about = event.get('params', {})
      match event['method']:
        case 'Runtime.exceptionThrown':
          faults.append(json.dumps(about['exceptionDetails'])[:300])
        case 'Log.entryAdded' if about['entry']['level'] == 'error':
          faults.append(f'{about["entry"]["text"]} {about["entry"].get("url")}')
        case 'Runtime.consoleAPICalled' if about['type'] == 'error':
          faults.append(json.dumps(about['args'])[:300])
        case 'Network.requestWillBeSent':
          asked.append(about['request']['url'])
    return faults, asked

  def picture(self, path, *, whole=False):
    got = self('Page.captureScreenshot', captureBeyondViewport=whole)
    path.write_bytes(base64.b64decode(got['data']))

  def close(self):
    self._process.terminate()
    self._process.wait()
    os.close(self._out)
    os.close(self._in)


@contextlib.contextmanager
def opened():
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    browser = Browser(profile)
    try:
      yield browser
    finally:
      browser.close()
