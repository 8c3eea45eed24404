"""Terminals that tell what people need; the log file has everything, as ever.

Before the first iteration mmengine logs the system, the whole config, the hooks and
every parameter: some hundred lines in which nobody finds what went wrong.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

_OURS = str(Path(__file__).resolve().parents[1])
_LOGGING = ('logging', 'mmengine.logging')


class _Ours(logging.Filter):
    """Lets through what this package says, and what is grave enough.

    Args:
        level: From which on others are heard too.
        until_first: Whether everything passes once an iteration was logged.
    """

    def __init__(self, level: int, until_first: bool) -> None:
        super().__init__()
        self.level = level
        self.until_first = until_first
        self.open = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide about one record."""
        if self.until_first and record.module == 'logger_hook':
            self.open = True
        return self.open or record.levelno >= self.level or self._heard(record)

    def _heard(self, record: logging.LogRecord) -> bool:
        module = _module_of_ours()
        # A command prints itself what it found; only a download makes people wait.
        told = self.until_first or record.levelno > logging.INFO
        return module is not None and (told or module.endswith('.transfer'))


def _module_of_ours() -> str | None:
    """Name the module of this package that logs, which ``print_log`` hides."""
    frame = sys._getframe(3)
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if not name.startswith(_LOGGING):
            return name if frame.f_code.co_filename.startswith(_OURS) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _terminals(logger: MMLogger) -> list[logging.Handler]:
    return [h for h in logger.handlers if type(h) is logging.StreamHandler]


class QuietRunner(Runner):
    """mmengine's Runner; its terminal is quiet until the first iteration is logged."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as mmengine does, and have its terminal say less."""
        logger = super().build_logger(*args, **kwargs)
        for handler in _terminals(logger):
            # First of all, since others may refuse the record that opens it.
            handler.filters.insert(0, _Ours(logging.WARNING, until_first=True))
        if logger.log_file is not None and self.rank == 0:
            logger.info(f'all that mmengine says is in {logger.log_file}')
        return logger


@contextmanager
def only_ours() -> Iterator[None]:
    """Keep mmengine, mmcv and mmdet from the terminal, but for errors.

    Of this package warnings are shown, and that something is downloaded.
    """
    logger = MMLogger.get_current_instance()
    quiet = _Ours(logging.ERROR, until_first=False)
    handlers = _terminals(logger)
    for handler in handlers:
        handler.addFilter(quiet)
    try:
        with warnings.catch_warnings():
            for host in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain'):
                warnings.filterwarnings('ignore', module=rf'{host}(\.|$)')
            # torch says so of itself to whoever calls what mmdet calls.
            warnings.filterwarnings('ignore', message='torch.meshgrid')
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(quiet)
