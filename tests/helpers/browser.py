"""Chromium without a window, driven through its pipe; it reaches this machine alone."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
    None,
)


class Browser:
    """One page of Chromium, with what it asked for over the network.

    Args:
        folder: For its profile.
        width: Of the page, in pixels.
        height: Of the page, in pixels.

    Attributes:
        asked: Every address that the page asked for.
        errors: What the page's scripts reported as errors.
    """

    def __init__(self, folder: Path, width: int, height: int = 900) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self._number, self._rest = 0, b''

        def connect() -> None:
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        self._process = subprocess.Popen(
            [PROGRAM, '--headless=new', '--no-sandbox', '--disable-gpu',
             '--no-proxy-server',
             '--disable-dev-shm-usage', '--disable-background-networking',
             '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
             '--remote-debugging-pipe', f'--user-data-dir={folder}'],
            preexec_fn=connect, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._session = ''
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        attached = self.send('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Network', 'Runtime', 'DOM'):
            self.send(f'{domain}.enable')
        self.send(
            'Emulation.setDeviceMetricsOverride',
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Ask the browser for something and return its answer."""
        self._number += 1
        message: dict[str, Any] = dict(id=self._number, method=method, params=values)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b'\0' not in self._rest:
            block = os.read(self._in, 1 << 16)
            assert block, 'the browser ended'
            self._rest += block
        text, _, self._rest = self._rest.partition(b'\0')
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        values = event.get('params', {})
        if event.get('method') == 'Network.requestWillBeSent':
            self.asked.append(values['request']['url'])
        elif event.get('method') == 'Runtime.exceptionThrown':
            self.errors.append(json.dumps(values['exceptionDetails'])[:500])

    def evaluate(self, script: str) -> Any:
        """Run a script in the page and return its value."""
        answer = self.send(
            'Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True
        )
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def wait_for(self, script: str, seconds: float = 60) -> Any:
        """Wait until a script in the page gives something true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f'never true: {script}'
            time.sleep(0.1)
        return value

    def open(self, address: str) -> None:
        """Go to a page."""
        self.send('Page.navigate', url=address)

    def drop(self, selector: str, path: Path) -> None:
        """Give a file to the input that a selector finds."""
        root = self.send('DOM.getDocument')['root']['nodeId']
        node = self.send('DOM.querySelector', nodeId=root, selector=selector)
        self.send('DOM.setFileInputFiles', files=[str(path)], nodeId=node['nodeId'])

    def photograph(self, path: Path) -> Path:
        """Write what the page looks like, all of its height."""
        picture = self.send('Page.captureScreenshot', captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture['data']))
        return path

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)
