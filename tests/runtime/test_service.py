"""The service that the guide shows answers over HTTP."""

import json
import re
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from exported_folders import draw, write_exported
from PIL import Image

GUIDE = Path(__file__).parents[2] / 'docs' / 'runtime.md'
BOUNDARY = 'synthetic'


def post(address: str, content: bytes) -> list[dict]:
    head = 'Content-Disposition: form-data; name="photograph"; filename="a.png"'
    body = f'--{BOUNDARY}\r\n{head}\r\n\r\n'.encode() + content
    body += f'\r\n--{BOUNDARY}--\r\n'.encode()
    kind = {'Content-Type': f'multipart/form-data; boundary={BOUNDARY}'}
    with urlopen(Request(address, body, kind), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_service_of_the_guide(tmp_path, monkeypatch):
    uvicorn = pytest.importorskip('uvicorn')
    pytest.importorskip('fastapi')
    code = re.search(r'title="serve.py"\n(.*?)^```$', GUIDE.read_text(), re.M | re.S)[1]
    monkeypatch.setenv('FOLDER', str(write_exported(tmp_path / 'exported')))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'serve.py').write_text(code)
    Image.fromarray(draw(64, 96, (16, 8, 56, 24))).save(tmp_path / 'a.png')
    server = uvicorn.Server(uvicorn.Config('serve:app', port=0, log_level='error'))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f'http://127.0.0.1:{port}/boxes'
        (found,) = post(address, (tmp_path / 'a.png').read_bytes())
        assert found['class'] == 'wide'
        assert found['box'] == [16, 8, 56, 24]
        assert post(f'{address}?threshold=0.9', (tmp_path / 'a.png').read_bytes()) == []
        with pytest.raises(HTTPError, match='400'):
            post(address, b'no image')
    finally:
        server.should_exit = True
        thread.join(20)
        sys.modules.pop('serve', None)
