"""How the code of the package is kept: few files, none too long, one word for one."""

import ast
from collections import Counter
from pathlib import Path

from conftest import LONG

PACKAGE = Path(__file__).parents[1] / 'mmdet_backbones'
FILES = sorted(PACKAGE.rglob('*.py'))
MOST_FILES = 350
MOST_LINES = 500


def test_no_two_classes_have_one_name():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.ClassDef)
    )
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


def test_the_package_has_few_files():
    assert 100 < len(FILES) <= MOST_FILES


def test_no_file_is_too_long():
    lines = {p: len(p.read_text(encoding='utf-8').splitlines()) for p in FILES}
    assert {p.name: n for p, n in lines.items() if n > MOST_LINES} == {}


def test_the_files_that_fast_runs_leave_out_are_there():
    tests = Path(__file__).parent
    assert [name for name in LONG if not (tests / name).is_file()] == []
