"""Clusters that run already, started as our message says."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from dist_runs import environment, free_port


@pytest.mark.slow
@pytest.mark.parametrize('token', ['', 'ab' * 32])
def test_a_cluster_is_joined_with_the_token_of_this_machine(token, tmp_path):
    here = {**environment(), 'HOME': str(tmp_path), 'RAY_USAGE_STATS_ENABLED': '0'}
    here.pop('RAY_AUTH_MODE', None)
    if token:
        (tmp_path / '.ray').mkdir()
        (tmp_path / '.ray' / 'auth_token').write_text(token)
    port = free_port()
    words = ['start', '--head', '--port', str(port), '--include-dashboard=false']
    log = tmp_path / 'log'
    with log.open('w') as file:
        head = subprocess.Popen(
            [str(Path(sys.executable).parent / 'ray'), *words, '--num-cpus=1',
             '--block', '--object-store-memory', str(80 << 20)],
            env=here, stdout=file, stderr=file,
        )  # fmt: skip
    code = (
        'import sys\n'
        'from mmdet_backbones.search.cluster import connect\n'
        'with connect(sys.argv[1]):\n'
        '    import ray\n'
        '    print(len(ray.nodes()), "machine")'
    )
    try:
        while '--block' not in log.read_text():
            assert head.poll() is None, log.read_text()
            time.sleep(0.1)
        address = re.search(r"--address='(\S+)'", log.read_text())[1]
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code, address],
            cwd=ROOT, env=here, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        head.terminate()
        head.wait()
    assert '1 machine' in done.stdout, done.stderr[-2000:]
