"""What MkDocs does beside its own: pages of the repository that lie outside docs/.

They are read where they are, so that nothing is kept twice.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)')
_FENCE = re.compile(r'^(```.*?^```)', re.MULTILINE | re.DOTALL)


def _outside() -> dict[str, str]:
    """Pages of the site by their path in the repository."""
    results = sorted(_ROOT.glob('benchmarks/*.md'))
    pages = {f'benchmarks/{path.name}': f'benchmarks/{path.name}' for path in results}
    return {
        **pages,
        'CONTRIBUTING.md': 'contributing.md',
        'CHANGELOG.md': 'changelog.md',
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages from outside into the navigation."""
    pages = list(_outside().values())
    measured = [page for page in pages if page.startswith('benchmarks/')]
    project = [page for page in pages if page not in measured]
    nav: list[Any] = config.nav or []
    config.nav = [*nav, {'Measured': measured}, {'Project': project}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside."""
    for source, page in _outside().items():
        files.append(File.generated(config, page, abs_src_path=str(_ROOT / source)))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Point links to files of the repository at the pages of the site.

    What is no page of the site becomes plain text.
    """
    pages = {page: source for source, page in _outside().items()}
    here = page.file.src_uri
    place = pages.get(here, f'docs/{here}')

    def rewrite(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups()
        if ':' in target:
            return match[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        there = _page_of(wanted)
        if there is not None and files.get_file_from_path(there) is not None:
            relative = posixpath.relpath(there, posixpath.dirname(here) or '.')
            return f'{mark}[{text}]({relative}{anchor or ""})'
        # A mistake inside docs/ is left for MkDocs to complain about.
        if wanted.startswith('docs/') or not (_ROOT / wanted).exists():
            return match[0]
        return text if text.startswith('`') else f'`{wanted}`'

    parts = _FENCE.split(markdown)
    return ''.join(
        part if part.startswith('```') else _LINK.sub(rewrite, part) for part in parts
    )


def _page_of(path: str) -> str | None:
    if path == 'README.md':
        return 'index.md'
    if path.startswith('docs/'):
        return path.removeprefix('docs/')
    return _outside().get(path)
