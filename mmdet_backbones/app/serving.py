"""Serves the page on this machine, and to no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..environment import missing_extra
from ..errors import UserError
from .subject import load_subject

#: The address is that of the machine itself: others cannot reach it.
HOST = '127.0.0.1'
_LARGEST = '100mb'


@dataclass(frozen=True)
class AppOptions:
    """What to show, and where.

    Attributes:
        model: A config, a work folder, or an exported folder.
        checkpoint: Of the detector, None for the best that there is.
        device: To run on, None for a GPU where there is one.
        port: On which the page is, None for the first free one from 7860 on.
        threshold: Lowest score of a box at first.
        trust: Whether an exported folder may be loaded that can bring code.
    """

    model: str
    checkpoint: str | None = None
    device: str | None = None
    port: int | None = None
    threshold: float = 0.3
    trust: bool = False


def problems_with(options: AppOptions) -> list[str]:
    """Return every reason why nothing can be served; none if it can."""
    missing = missing_extra('app', 'app', 'gradio')
    found = [missing] if missing else []
    if options.port is not None and not 0 < options.port < 1 << 16:
        found.append(f'--port is from 1 to 65535, got {options.port}')
    if not 0 <= options.threshold <= 1:
        found.append(f'--threshold is from 0 to 1, got {options.threshold}')
    return found


class Served:
    """A page that is served until it is closed.

    Args:
        options: Without problems, see :func:`problems_with`.

    Attributes:
        address: Of the page.
        notes: What a user should know of the choice of the weights.

    Raises:
        UserError: If the detector cannot be loaded, or the port is taken.
        CheckpointError: If the checkpoint cannot be read.
    """

    def __init__(self, options: AppOptions) -> None:
        subject = load_subject(
            options.model, options.device, options.checkpoint, options.trust
        )
        from .page import build_page, theme

        self.notes = subject.detector.notes
        self._page = build_page(subject, options.threshold)
        try:
            _, self.address, _ = self._page.queue(max_size=16).launch(
                server_name=HOST, server_port=options.port, share=False, quiet=True,
                prevent_thread_lock=True, inbrowser=False, show_error=True,
                ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                run_history=False, footer_links=[], theme=theme(),
                max_file_size=_LARGEST, state_session_capacity=100,
            )  # fmt: skip
        except OSError as error:
            raise UserError(
                f'no page can be served on port {options.port or "7860 to 7959"} of '
                f'{HOST}: another program has it. Write another --port'
            ) from error

    def close(self) -> None:
        """Stop serving."""
        self._page.close(verbose=False)


def serve(options: AppOptions, tell: Callable[[Served], object]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        options: Without problems.
        tell: Gets what is served, once it is.
    """
    served = Served(options)
    try:
        tell(served)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        served.close()
