"""A page shows boxes above a threshold, and the levels, and asks nobody outside."""

import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from browser import PROGRAM, Browser
from conftest import ROOT
from exported_folders import draw, write_exported
from finders import photographs, work_folder
from PIL import Image

from mmdet_backbones.app.serving import AppOptions, Served, problems_with
from mmdet_backbones.cli.main import main

BRIGHT = draw(64, 96, (16, 8, 56, 24), (4, 40, 12, 60)).repeat(6, 0).repeat(6, 1)
FILE = "document.querySelector('input[type=file]')"
IMAGES = "[...document.querySelectorAll('img')].filter(i => i.complete)"
BUTTON = (
    "[...document.querySelectorAll('button')].find(b => b.innerText.includes('{}'))"
)
TEXT = 'document.body.innerText'
WIDTHS = (1280, 390)


@pytest.fixture(scope='module')
def photograph(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('photograph') / 'bright.png'
    Image.fromarray(BRIGHT).save(path)
    return path


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """A page of an exported detector, and every host that this process looks up."""
    pytest.importorskip('gradio')
    hosts = set()

    def watch(event, arguments):
        if event == 'socket.connect' and isinstance(arguments[1], tuple):
            hosts.add(arguments[1][0])
        elif event == 'socket.getaddrinfo':
            hosts.add(arguments[0])

    sys.addaudithook(watch)
    page = Served(AppOptions(str(write_exported(tmp_path_factory.mktemp('exported')))))
    page.hosts = hosts
    yield page
    page.close()


@pytest.fixture(scope='module')
def served_work_folder(tmp_path_factory):
    pytest.importorskip('gradio')
    page = Served(AppOptions(str(work_folder(tmp_path_factory.mktemp('work')))))
    yield page
    page.close()


@pytest.fixture
def browser(tmp_path):
    if PROGRAM is None:
        pytest.skip('there is no Chromium')
    opened = []

    def open_browser(width: int) -> Browser:
        opened.append(Browser(tmp_path / f'profile{width}', width))
        return opened[-1]

    yield open_browser
    for one in opened:
        one.close()


def client_of(page, monkeypatch):
    # The client, not the page, asks its maker's hub who it is.
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    from gradio_client import Client

    return Client(page.address, verbose=False)


def test_every_mistake_is_told_at_once(monkeypatch):
    for name in [n for n in sys.modules if n.partition('.')[0] == 'gradio']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'path', [])
    found = problems_with(AppOptions('model', port=70000, threshold=2))
    for words in ('mmdet_backbones[app]', 'got 70000', 'from 0 to 1, got 2'):
        assert words in '\n'.join(found)


def test_what_is_no_detector_ends_the_command(tmp_path, capsys):
    if find_spec('gradio') is None:
        pytest.skip('Gradio is not installed')
    assert main(['app', str(tmp_path / 'absent')]) == 1
    assert f"'{tmp_path / 'absent'}'" in capsys.readouterr().err


@pytest.mark.slow
def test_over_http_only_this_machine_is_asked(served, photograph, monkeypatch):
    assert served.address.startswith('http://127.0.0.1:')
    assert served.hosts <= {'127.0.0.1', 'localhost'}
    from gradio_client import handle_file

    client = client_of(served, monkeypatch)
    shown, table = client.predict(handle_file(photograph), 0.3, api_name='/find')
    assert table['data'] == [['wide', 1, 0.78], ['upright', 1, 0.75]]
    painted = np.asarray(Image.open(shown).convert('RGB')).astype(int)
    assert painted.shape == BRIGHT.shape
    assert np.abs(painted - BRIGHT)[48:60, 96:336].max() > 100
    _, table = client.predict(0.77, api_name='/paint')
    assert table['data'] == [['wide', 1, 0.78]]
    _, table = client.predict(1, api_name='/paint')
    assert table['data'] == []


@pytest.mark.slow
def test_a_file_that_is_no_image_is_told_on_the_page(served, tmp_path, monkeypatch):
    from gradio_client import handle_file

    (tmp_path / 'notes.jpg').write_text('<b>no image</b>')
    client = client_of(served, monkeypatch)
    with pytest.raises(Exception, match=r"^the image 'notes\.jpg' cannot be read"):
        client.predict(handle_file(tmp_path / 'notes.jpg'), 0.3, api_name='/find')


@pytest.mark.slow
def test_a_file_that_nobody_dropped_is_not_read(served, photograph):
    given = dict(path=str(photograph), meta=dict(_type='gradio.FileData'))
    call = f'{served.address}gradio_api/call/find'
    body = json.dumps(dict(data=[given, 0.3])).encode()
    request = Request(call, body, {'Content-Type': 'application/json'})
    with urlopen(request, timeout=20) as answer:
        event = json.load(answer)['event_id']
    with urlopen(f'{call}/{event}', timeout=20) as answer:
        told = answer.read().decode()
    assert 'event: error' in told
    assert 'event: complete' not in told


@pytest.mark.slow
def test_a_port_that_is_taken_is_told(served, tmp_path, capsys):
    port = served.address.strip('/').rpartition(':')[2]
    folder = str(write_exported(tmp_path / 'exported'))
    assert main(['app', folder, '--port', port]) == 1
    assert f'no page can be served on port {port}' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('width', WIDTHS)
def test_the_page_in_a_browser(served, photograph, browser, width, tmp_path):
    no_image = tmp_path / 'notes.jpg'
    no_image.write_text('no image')
    page = browser(width)
    page.open(served.address)
    page.wait_for(f'{FILE} !== null')
    page.drop('input[type=file]', photograph)
    page.wait_for(f'{IMAGES}.length == 2')
    text = page.wait_for("document.body.innerText.includes('0.78') && "
                         'document.body.innerText')  # fmt: skip
    assert 'upright' in text
    page.evaluate(
        "(() => { const s = document.querySelector('input[type=range]');"
        "s.value = 0.77; s.dispatchEvent(new Event('input', {bubbles: true}));"
        "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.wait_for("!document.body.innerText.includes('upright')")
    page.evaluate("document.querySelector('button[aria-label*=Remove i]').click()")
    page.wait_for(f'{IMAGES}.length == 0 && {FILE} !== null')
    page.drop('input[type=file]', no_image)
    page.wait_for("document.body.innerText.includes('the image')")
    assert "image 'notes.jpg' cannot be read" in page.evaluate(TEXT)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert_nothing_is_cut_off(page)
    assert_alone(page)


@pytest.mark.slow
def test_the_levels_of_a_work_folder(served_work_folder, browser, tmp_path):
    page = browser(1280)
    page.open(served_work_folder.address)
    page.wait_for(f'{FILE} !== null')
    page.drop('input[type=file]', photographs(tmp_path / 'photos', 1) / '0.png')
    page.wait_for(f'{IMAGES}.length == 2')
    page.evaluate(BUTTON.format('Levels') + '.click()')
    page.wait_for(f'{BUTTON.format("Draw the levels")} !== undefined')
    page.evaluate(BUTTON.format('Draw the levels') + '.click()')
    page.wait_for(f'{IMAGES}.length == 3')
    assert page.evaluate(f'{IMAGES}[2].naturalWidth') > 1000
    assert_alone(page)


def assert_alone(page: Browser) -> None:
    here = ('http://127.0.0.1:', 'data:', 'blob:', 'about:')
    assert len(page.asked) > 10
    assert [address for address in page.asked if not address.startswith(here)] == []
    assert page.errors == []


def assert_nothing_is_cut_off(page: Browser) -> None:
    """No text of a title or a button is longer than the room it has."""
    cut = page.evaluate(
        "[...document.querySelectorAll('h2, label, button, th, td')]"
        '.filter(e => e.offsetParent && e.innerText.trim()'
        ' && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)'
        '.map(e => e.innerText)'
    )
    assert cut == []


@pytest.mark.slow
def test_the_command_ends_with_ctrl_c_and_forgets(tmp_path, photograph, monkeypatch):
    client = pytest.importorskip('gradio_client')
    folder = write_exported(tmp_path / 'exported')
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path / 'dropped'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    process = subprocess.Popen(
        [sys.executable, '-m', 'mmdet_backbones', 'app', str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        address = line.partition(' ')[0]
        assert line == f'{address} shows {folder}; Ctrl-C ends it\n'
        page = client.Client(address, verbose=False, download_files=False)
        page.predict(client.handle_file(photograph), 0.3, api_name='/find')
        assert [*(tmp_path / 'dropped').rglob('*.png')]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, '', '')
    left = [path for path in (tmp_path / 'dropped').rglob('*') if path.is_file()]
    assert left == []
