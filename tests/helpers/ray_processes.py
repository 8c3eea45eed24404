"""Processes of Ray that belong to a command, found below it."""

import subprocess

from dist_runs import descendants


def workers_of(pid: int, name: str = 'RayTrainWorker') -> list[int]:
    """Find the processes of a command that run an actor of this name."""
    found = []
    for child in descendants(pid):
        line = ['ps', '-o', 'args=', '-p', str(child)]
        text = subprocess.run(line, capture_output=True, text=True).stdout
        if name in text:
            found.append(child)
    return found
