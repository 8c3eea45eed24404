"""Videos that are made of photographs, cameras that are not there, streams that end."""

import json
import shutil
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_backbones.cli.main import main
from mmdet_backbones.errors import UserError
from mmdet_backbones.predict.films import Film
from mmdet_backbones.predict.options import PredictOptions
from mmdet_backbones.predict.painting import colour
from mmdet_backbones.predict.running import predict

FRAMES, RATE, SIZE = 12, 8.0, (160, 128)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """A window that moves over a synthetic photograph."""
    random = np.random.default_rng(0)
    photograph = random.integers(90, 160, (128, 400, 3), dtype=np.uint8)
    for _ in range(12):
        x, y = random.integers(0, 370), random.integers(0, 100)
        photograph[y : y + 24, x : x + 24] = random.integers(0, 255, 3)
    path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), RATE, SIZE)
    for number in range(FRAMES):
        window = photograph[:, number * 20 : number * 20 + 160]
        writer.write(np.ascontiguousarray(window))
    writer.release()
    return path


@pytest.fixture
def run(rooted, detector, clip, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, tmp_path)

    def start(*words):
        words = ['predict', rooted / 'work', *words, '--device', 'cpu']
        status = main([*map(str, words)])
        said = capfd.readouterr()
        return status, said.out, said.err

    return start


def frames_of(path):
    with Film(str(path), 'film').opened() as reel:
        return [pixels for _, pixels in reel.frames()], reel


@pytest.mark.slow
def test_a_video_is_predicted_frame_by_frame(run, detector, clip):
    status, out, err = run(
        'clip.mp4', '--paint', 'painted', '-o', 'found.jsonl', '--threshold', '0.2'
    )
    assert status == 0, err
    assert out.splitlines()[-2:] == ['found.jsonl', 'painted']
    lines = [*map(json.loads, Path('found.jsonl').read_text().splitlines())]
    assert [line['frame'] for line in lines] == [*range(FRAMES)]
    assert [line['time'] for line in lines[:3]] == [0, 0.125, 0.25]
    assert {line['image'] for line in lines} == {'clip.mp4'}
    pixels, _ = frames_of(clip)
    for line, found in zip(lines, detector.predict(pixels, 0.2), strict=True):
        boxes = np.array([box['box'] for box in line['boxes']]).reshape(-1, 4)
        assert boxes == pytest.approx(found.boxes)
    assert sum(len(line['boxes']) for line in lines) > FRAMES
    painted, reel = frames_of('painted/clip.mp4')
    assert (len(painted), reel.rate, painted[0].shape) == (FRAMES, RATE, (128, 160, 3))
    # The colours of the classes are in it, and were not before.
    near = [
        np.abs(np.stack(some).astype(int) - colour(0)).sum(-1) < 90
        for some in (painted, pixels)
    ]
    assert near[0].mean() > 5 * near[1].mean()


@pytest.mark.slow
def test_videos_and_images_in_one_go(run, images):
    status, out, _ = run('clip.mp4', images[0], '--json')
    found = json.loads(out)['found']
    assert status == 0
    assert [one.get('frame') for one in found] == [None, *range(FRAMES)]


def test_a_damaged_video_is_told(run, clip, tmp_path):
    content = clip.read_bytes()
    (tmp_path / 'none.mp4').write_bytes(content[: len(content) // 2])
    (tmp_path / 'empty.avi').write_bytes(b'')
    status, out, err = run('none.mp4', 'empty.avi', 'clip.mp4')
    assert (status, out) == (1, '')
    assert "the video 'none.mp4' cannot be read: it is damaged" in err
    assert "the video 'empty.avi' cannot be read" in err


def test_a_video_that_ends_too_soon_is_told(run, tmp_path):
    # Motion JPEG has its index at the end, and its frames are found without it.
    path = tmp_path / 'long.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), RATE, SIZE)
    for number in range(40):
        writer.write(np.full((128, 160, 3), number, np.uint8))
    writer.release()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with Film(str(path), 'long.avi').opened() as reel:
        count = len([*reel.frames()])
        assert 0 < count < 40
        reel.count = 40
        assert (
            f'damaged, or was cut off: {count} of its 40 frames could be read'
            in reel.problem
        )


def test_labels_are_for_images(run):
    status, _, err = run('clip.mp4', '--format', 'yolo', '-o', 'labels')
    assert status == 1
    assert "--format yolo is for images, and 'clip.mp4' is none" in err


def test_a_painted_video_goes_over_nothing(run, tmp_path):
    status, _, err = run('clip.mp4', '--paint', '.', '--force')
    assert status == 1
    assert '--paint would write over what it paints' in err
    (tmp_path / 'painted').mkdir()
    (tmp_path / 'painted' / 'clip.mp4').write_bytes(b'mine')
    status, _, err = run('clip.mp4', '--paint', 'painted')
    assert (status, 'is there already' in err) == (1, True)


def test_cameras_and_streams_that_are_not_there_are_told(run):
    status, out, err = run('77', 'rtsp://me:secret@127.0.0.1:9/live')
    assert (status, out) == (1, '')
    assert 'there is no camera 77, or another program has it' in err
    assert "the stream 'rtsp://***@127.0.0.1:9/live' does not answer" in err
    assert 'secret' not in err


class _Server(SimpleHTTPRequestHandler):
    """Sends files, and under ``/live`` what a camera in the net sends."""

    sent = 60

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path != '/live':
            super().do_GET()
            return
        self.send_response(200)
        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=b')
        self.end_headers()
        for number in range(self.sent):
            pixels = np.full((128, 160, 3), 4 * number, np.uint8)
            picture = cv2.imencode('.jpg', pixels)[1].tobytes()
            head = f'Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n'
            self.wfile.write(b'--b\r\n' + head.encode() + picture + b'\r\n')
            time.sleep(0.03)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    started = ThreadingHTTPServer(('127.0.0.1', 0), _Server)
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{started.server_port}'
    started.shutdown()
    started.server_close()


@pytest.mark.slow
def test_a_slow_detector_does_not_fall_behind_a_camera(server):
    film = Film(f'{server}/live', 'live', live=True)
    seen = []
    with film.opened() as reel:
        for number, pixels in reel.frames():
            # The number of a frame is its grey: none is mistaken for another.
            assert abs(pixels.mean() / 4 - number) < 1.5
            seen.append(number)
            time.sleep(0.2)
    assert 3 < len(seen) < 30
    assert seen[-1] == _Server.sent - 1
    with film.opened() as reel:
        # Whoever has seen enough does not wait for the end.
        start = time.monotonic()
        next(reel.frames())
    assert time.monotonic() - start < 2


@pytest.mark.slow
def test_a_stream_that_ends_is_complete(run, server, tmp_path):
    status, _, err = run(f'{server}/clip.mp4', '-o', 'a.jsonl', '--paint', 'painted')
    assert status == 0, err
    assert len((tmp_path / 'a.jsonl').read_text().splitlines()) == FRAMES
    assert len(frames_of('painted/stream.mp4')[0]) == FRAMES
    status, _, err = run(f'{server}/live', '-o', 'b.jsonl', '--paint', 'live')
    assert status == 0, err
    lines = [*map(json.loads, (tmp_path / 'b.jsonl').read_text().splitlines())]
    numbers = [line['frame'] for line in lines]
    assert numbers == sorted(set(numbers))
    # What nobody had time for is held, so that the video takes as long.
    assert len(frames_of('live/stream.mp4')[0]) == numbers[-1] + 1


def test_ctrl_c_ends_a_video(rooted, run, tmp_path):
    def stopped(items, total, name):
        assert total == FRAMES
        for number, item in enumerate(items):
            if number == 5:
                raise KeyboardInterrupt
            yield item

    options = PredictOptions(
        str(rooted / 'work'), ('clip.mp4',), device='cpu', paint=tmp_path / 'painted'
    )
    summary = predict(options, stopped)
    assert (summary.stopped, summary.images) == (True, 5)
    assert len(frames_of('painted/clip.mp4')[0]) == 5


@pytest.mark.slow
def test_ctrl_c_is_the_end_of_a_stream(rooted, run, server, tmp_path):
    def stopped(items, total, name):
        for number, item in enumerate(items):
            if number == 3:
                raise KeyboardInterrupt
            yield item

    options = PredictOptions(
        str(rooted / 'work'), (f'{server}/live',), device='cpu',
        out=tmp_path / 'found.csv', format='csv',
    )  # fmt: skip
    summary = predict(options, stopped)
    assert (summary.stopped, summary.problems, summary.images) == (False, [], 3)
    assert summary.written == [tmp_path / 'found.csv']


def test_a_video_that_cannot_be_encoded_leaves_nothing(run, tmp_path, rooted):
    def failing(items, total, name):
        for number, item in enumerate(items):
            if number == 5:
                raise UserError('the machine gives up')
            yield item

    options = PredictOptions(
        str(rooted / 'work'), ('clip.mp4',), device='cpu', paint=tmp_path / 'painted',
        out=tmp_path / 'found.jsonl',
    )  # fmt: skip
    with pytest.raises(UserError, match=r'gives up\nwhat was found .*partial'):
        predict(options, failing)
    assert [*(tmp_path / 'painted').iterdir()] == []
    partial = tmp_path / 'found.jsonl.partial'
    assert len(partial.read_text().splitlines()) == 5
