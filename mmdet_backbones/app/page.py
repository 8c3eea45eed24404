"""The page: a photograph, its boxes above a threshold, and the levels of the net."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import CheckpointError, UserError
from ..predict.detector import above
from ..predict.painting import paint
from ..runtime.detections import Detections
from .subject import Subject

# Read when Gradio is imported; nobody is told what is looked at here.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

import gradio as gr

# Photographs that were dropped are removed after so many seconds.
_KEPT = 3600
# Gradio's third one publishes the picture.
_BUTTONS: Any = ['download', 'fullscreen']
_COLUMNS = ('class', 'boxes', 'best')
# One computation at a time: the net is one, and so may be the processor's memory.
_NET: Any = dict(concurrency_id='net', concurrency_limit=1)
# A photograph as it was found: its path, and all of its boxes.
_Found = tuple[str, Detections] | None


def theme() -> gr.themes.Base:
    """Give a theme whose fonts every system has: none is fetched."""
    return gr.themes.Default(
        primary_hue='teal',
        font=['system-ui', 'sans-serif'],
        font_mono=['ui-monospace', 'monospace'],
    )


def build_page(subject: Subject, threshold: float) -> gr.Blocks:
    """Build the page.

    The net runs once for each photograph; moving the threshold only paints again.

    Args:
        subject: What is looked at.
        threshold: Lowest score at first.
    """
    with gr.Blocks(
        analytics_enabled=False, title=subject.name, delete_cache=(_KEPT, _KEPT)
    ) as page:
        gr.HTML(f'<h2>{escape(subject.name)}</h2>')
        found = gr.State(None, time_to_live=_KEPT)
        with gr.Row():
            with gr.Column():
                photograph = gr.Image(
                    label='Photograph', type='filepath', height=320,
                    sources=['upload', 'clipboard'], buttons=['fullscreen'],
                )  # fmt: skip
                # Gradio would open the file, and fail with a traceback of its own.
                photograph.preprocess = _path_of  # type: ignore[method-assign]
                lowest = gr.Slider(0, 1, threshold, step=0.01, label='Threshold')
            with gr.Column():
                boxes = _picture('Boxes', 'jpeg')
                table = gr.Dataframe(
                    headers=list(_COLUMNS), datatype=['str', 'number', 'number'],
                    column_count=len(_COLUMNS), label='Found', interactive=False,
                )  # fmt: skip
        outputs = [boxes, table]
        seen = photograph.change(
            _told(lambda path, score: _find(subject, path, score)),
            [photograph, lowest], [found, *outputs], api_name='find', **_NET,
        )  # fmt: skip
        # The boxes of the one before are not painted again.
        seen.failure(lambda: None, None, found, api_visibility='private')
        lowest.change(
            _told(lambda state, score: _show(subject, state, score)),
            [found, lowest], outputs, api_name='paint', queue=False,
            trigger_mode='always_last', show_progress='hidden',
        )  # fmt: skip
        if subject.draw_levels is not None:
            _add_levels(subject.draw_levels, photograph)
    return page


def _add_levels(draw: Callable[[Path], Image.Image], photograph: gr.Image) -> None:
    with gr.Accordion('Levels', open=False):
        gr.Markdown('What each level holds of the photograph, and how far it sees.')
        button = gr.Button('Draw the levels')
        levels = _picture('Levels', 'png')

    def look(path: str | None) -> Image.Image:
        if path is None:
            raise UserError('Drop a photograph first')
        return draw(Path(path))

    button.click(_told(look), photograph, levels, api_name='levels', **_NET)
    photograph.change(lambda: None, None, levels, api_visibility='private')


def _picture(label: str, kind: str) -> gr.Image:
    # The label would lie over the corner of the picture.
    return gr.Image(
        label=label, show_label=False, interactive=False, format=kind, buttons=_BUTTONS
    )


def _path_of(payload: Any) -> str | None:
    return None if payload is None else payload.path


def _find(subject: Subject, path: str | None, score: float) -> tuple[Any, ...]:
    if path is None:
        return None, *_show(subject, None, score)
    pixels = subject.detector.read(path)
    (found,) = subject.detector.predict([pixels])
    state: _Found = (path, found)
    return state, *_show(subject, state, score)


def _show(subject: Subject, state: _Found, score: float) -> tuple[Any, ...]:
    if state is None:
        return None, []
    path, found = state
    kept = above(found, score)
    return paint(subject.detector.read(path), kept), _rows(kept)


def _rows(found: Detections) -> list[list[Any]]:
    """Count the boxes of each class, the most frequent first."""
    names = [found.names[label] for label in found.labels]
    best: dict[str, float] = {}
    for name, score in zip(names, found.scores, strict=True):
        best[name] = max(best.get(name, 0.0), float(score))
    return [
        [name, count, round(best[name], 2)]
        for name, count in Counter(names).most_common()
    ]


def _told(work: Callable[..., Any]) -> Callable[..., Any]:
    """Tell a person's mistake on the page; what else goes wrong is a bug."""

    @wraps(work)
    def tell(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except (UserError, CheckpointError) as error:
            text = str(error)
            for path in arguments:
                # Where Gradio keeps a photograph helps nobody.
                if isinstance(path, str):
                    text = text.replace(path, Path(path).name)
            raise gr.Error(escape(text, quote=False), print_exception=False) from error

    return tell
