"""Runs that are killed just before their n-th change of the disk."""

import os
import signal
import sys
import time

import cv2

_CHANGES = ('os.rename', 'os.link', 'os.mkdir', 'os.remove', 'os.rmdir', 'own.pwrite')
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# An audit hook stays as long as its process: it sleeps while this is None.
_left = None
_act = None


def _hook(event, args):
    global _left
    if _left is None:
        return
    opened = event == 'open' and (
        args[2] & _WRITING if args[1] is None else set(args[1]) & set('wxa+')
    )
    if opened or event in _CHANGES:
        _left -= 1
        if _left == 0:
            _act()


sys.addaudithook(_hook)
_pwrite = os.pwrite


def _told_pwrite(file, data, offset):
    sys.audit('own.pwrite')
    return _pwrite(file, data, offset)


def acting_at(step, act, run):
    """Run something; before its n-th change of the disk, act."""
    global _left, _act
    _left, _act, os.pwrite = step, act, _told_pwrite
    try:
        return run()
    finally:
        _left, os.pwrite = None, _pwrite


def killed_at(step, run, limit=60):
    """Tell whether a run was killed before its n-th change; it ends in any case."""
    child = os.fork()
    if not child:
        try:
            cv2.setNumThreads(0)
            acting_at(step, lambda: os.kill(os.getpid(), signal.SIGKILL), run)
            os._exit(0)
        finally:
            os._exit(1)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status in (0, signal.SIGKILL), status
            return status == signal.SIGKILL
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError('the run hangs')
