"""The documents: every block of code runs, every link leads somewhere.

A block that trains, installs or needs several GPUs says so in front of it,
``<!-- not run: why -->``, or ``<!-- not run (pip, train): why -->`` if only the
commands with these words are left out. Of those, the flags are checked.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from exported_folders import write_exported
from finders import work_folder
from mmengine.config import Config
from own_folders import scenes, write_voc
from write_docs_tables import backbone_pages

from mmdet_backbones.catalog.figures import read_figures
from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.cli.main import main
from mmdet_backbones.registry import MODELS

ROOT = Path(__file__).parents[2]
GUIDES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('docs/*.md'))
PAGES = ['README.md', *GUIDES]
# What these show is in README too, or takes many seconds.
SLOW = ('errors_and_cures.md', 'index.md', 'plain_vits.md', 'predict.md',
        'runtime.md', 'swap_a_backbone.md', 'weights.md')  # fmt: skip
FENCE = re.compile(
    r'(?:<!-- not run(?: \(([^)]*)\))?: [^>]+ -->\n)?^```(\w*)([^\n]*)\n(.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r'\]\(([^)\s]+)\)')
# For blocks that show a part of a config.
BASE = "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n"


@dataclass(frozen=True)
class Block:
    """A block of code; ``left_out``: words of commands not run, None for all."""

    language: str
    title: str
    text: str
    left_out: tuple[str, ...] | None


def blocks_of(page: str) -> list[Block]:
    found = []
    for match in FENCE.finditer((ROOT / page).read_text(encoding='utf-8')):
        words, language, rest, text = match.groups()
        title = re.search(r'title="([^"]+)"', rest)
        marked = match[0].startswith('<!--')
        left_out = tuple((words or '').replace(' ', '').split(',')) if words else ()
        found.append(
            Block(
                language,
                title[1] if title else '',
                text,
                None if marked and not words else left_out,
            )
        )
    return found


def commands_of(text: str) -> list[list[str]]:
    lines = text.replace('\\\n', ' ').splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def is_config(text: str) -> bool:
    """Whether a block of Python assigns names and does nothing else."""
    return all(isinstance(node, ast.Assign) for node in ast.parse(text).body) and (
        re.match(r'_base_|model|optim_wrapper|auto_scale_lr', text) is not None
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that looks like a clone, with what a reader brings along."""
    for name in ('tools', 'configs', 'requirements'):
        (tmp_path / name).symlink_to(ROOT / name)
    write_voc(tmp_path / 'photos', scenes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # What is ours stays, also where a guide is the first to ask for it.
    MODELS.import_from_location()
    import_module('mmdet_backbones.detectors')
    known, modules = dict(MODELS.module_dict), set(sys.modules)
    yield tmp_path
    # What a guide registers is no part of this package.
    MODELS._module_dict = known
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], '__file__', None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def run_here(monkeypatch, folder, capsys):
    """Run a command as it stands in a document, in this process."""

    def run(words: list[str]) -> None:
        words = words[next(i for i, word in enumerate(words) if '=' not in word) :]
        assert words[0] == 'mmdet-backbones', f'not run and not marked: {words}'
        assert words[1] not in ('train', 'test', 'demo'), f'not marked: {words}'
        if words[1] == 'check' and '--fast' not in words:
            words = [*words, '--fast']  # asks no server
        bring_weights(words)
        monkeypatch.setattr(sys, 'argv', words)
        status = main(words[1:])
        assert status == 0, f'{words}\n{"".join(capsys.readouterr())}'

    return run


def bring_weights(words: list[str]) -> None:
    """Make the checkpoint that README takes for granted."""
    if 'weights.pth' in words and not Path('weights.pth').exists():
        import timm
        import torch

        torch.save(timm.create_model('resnet50').state_dict(), 'weights.pth')


@cache
def help_of(subcommand: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([subcommand, '--help'])
    assert 'usage:' in said.getvalue().lower()
    return said.getvalue()


def check_flags(words: list[str]) -> None:
    """Look whether a command that is not run could be."""
    words = words[next(i for i, word in enumerate(words) if '=' not in word) :]
    if words[0] == 'make':
        targets = re.findall(r'^(\S+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    if words[0] == 'pip':
        check_extras(words)
        return
    assert words[0] == 'mmdet-backbones', words
    flags = [word.partition('=')[0] for word in words if word.startswith('--')]
    missing = [flag for flag in flags if flag not in help_of(words[1])]
    assert not missing, f'{words[1]} takes no {missing}'


def check_extras(words: list[str]) -> None:
    """Look whether there is what a line for pip names."""
    known = ConfigParser()
    known.read(ROOT / 'setup.cfg')
    extras = re.findall(r'\[(.+)\]', ' '.join(words))
    assert extras, words
    for name in extras[0].split(','):
        assert name in known['options.extras_require'], words


def run_python(block: Block, folder: Path, namespace: dict) -> None:
    if not is_config(block.text):
        if block.title:  # for a block below to import
            (folder / block.title).write_text(block.text)
        else:
            exec(compile(block.text, 'block', 'exec'), namespace)
        return
    whole = '_base_' in block.text
    path = folder / (block.title or ('my_config.py' if whole else 'part.py'))
    if block.title and path.exists():
        is_part_of(block.text, path)
        return
    path.write_text(block.text if whole else BASE + block.text)
    findings = errors_of(check_config(Config.fromfile(path)))
    assert not findings, f'{block.text}\n{describe(findings)}'


def is_part_of(text: str, path: Path) -> None:
    """Look whether a command of the page wrote what the page shows of its file."""
    written = {ast.dump(node) for node in ast.parse(path.read_text()).body}
    shown = {ast.dump(node) for node in ast.parse(text).body}
    assert shown
    assert shown <= written, f'{path.name} says otherwise:\n{path.read_text()}'


def bring_detector(text: str) -> None:
    """Make the work folder that a reader has trained, and what was exported."""
    if 'work_dirs/mine' in text and not Path('work_dirs/mine').exists():
        work_folder(Path('work_dirs/mine'))
    if 'exported' in text and not Path('exported').exists():
        write_exported(Path('exported'))


def run_block(block: Block, folder: Path, namespace: dict, run_here) -> None:
    bring_detector(block.text)
    if block.language == 'python':
        assert block.left_out == (), 'blocks of Python are run'
        run_python(block, folder, namespace)
        return
    for words in commands_of(block.text):
        out = block.left_out
        skipped = out is None or not set(out).isdisjoint(words)
        check_flags(words) if skipped else run_here(words)


@pytest.mark.parametrize(
    'page',
    [
        pytest.param(page, marks=pytest.mark.slow if page.endswith(SLOW) else ())
        for page in PAGES
        if blocks_of(page)
    ],
)
def test_the_blocks_of_a_page_run(page, folder, run_here):
    namespace: dict = {'__name__': 'page'}
    for block in blocks_of(page):
        assert block.language in ('python', 'bash', 'text'), (
            f'no language: {block.text}'
        )
        if block.language != 'text':
            run_block(block, folder, namespace, run_here)


def test_every_guide_is_looked_at():
    assert len(GUIDES) >= 8
    assert sum(len(blocks_of(page)) for page in PAGES) > 50


def phrases() -> set[str]:
    """Every phrase of a message of the package that no value interrupts."""
    found = set()
    for path in (ROOT / 'mmdet_backbones').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(line.strip(' :;,.') for line in node.value.splitlines())
    return {phrase for phrase in found if len(phrase) >= 18}


def test_messages_that_are_quoted_exist():
    known = phrases()
    quoted = [b for b in blocks_of('docs/errors_and_cures.md') if b.language == 'text']
    assert len(quoted) > 20
    unknown = [b.text for b in quoted if not any(p in b.text for p in known)]
    assert unknown == []


def documents() -> list[Path]:
    others = ('.*', 'site', 'work_dirs', 'data', 'build', '*.egg-info')
    paths = (path.relative_to(ROOT) for path in ROOT.glob('**/*.md'))
    return [p for p in paths if not any(Path(p.parts[0]).match(o) for o in others)]


def anchors_of(path: Path) -> set[str]:
    text = FENCE.sub('', path.read_text(encoding='utf-8'))
    titles = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    slugs = {
        re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles
    }
    return slugs | set(re.findall(r'^::: (\S+)$', text, re.MULTILINE))


def test_every_link_leads_somewhere():
    dead, seen = [], 0
    for page in documents():
        for target in LINK.findall(FENCE.sub('', (ROOT / page).read_text('utf-8'))):
            if re.match(r'\w+:', target):
                continue
            name, _, anchor = target.partition('#')
            path = ROOT / page.parent / name if name else ROOT / page
            seen += 1
            lost = anchor and path.suffix == '.md' and anchor not in anchors_of(path)
            if not path.exists() or lost:
                dead.append(f'{page}: {target}')
    assert seen > 50
    assert dead == []


def code_of(page: str) -> list[tuple[str, str]]:
    """The blocks of a page without comments, which are translated."""
    return [
        (block.language, re.sub(r' *#[^\n]*', '', block.text))
        for block in blocks_of(page)
    ]


def test_both_readmes_have_the_same_code():
    assert code_of('README_zh-CN.md') == code_of('README.md')


def test_the_tables_of_backbones_are_those_of_the_catalog():
    for name, text in backbone_pages(read_figures()).items():
        assert (ROOT / 'docs' / name).read_text() == text, (
            f'docs/{name} is out of date: python tools/upkeep/write_docs_tables.py'
        )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
def test_the_site_is_built_without_warnings():
    done = subprocess.run(
        ['make', 'docs'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'WARNING -' not in done.stdout + done.stderr
    assert (ROOT / 'site' / 'errors_and_cures.html').is_file()
    # A browser reads, and searches, without a network or a server.
    pages = list((ROOT / 'site').rglob('*.html'))
    fetched = r'<(?:script|img|iframe)[^>]+src="?http|<link[^>]+href="?http'
    assert len(pages) > 30
    assert [page for page in pages if re.search(fetched, page.read_text())] == []
    assert (ROOT / 'site' / 'search' / 'search_index.js').is_file()
