"""What the check says to write, written into the config as a user would."""

from __future__ import annotations

import ast
import re
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from planted import load

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import Finding, describe
from mmdet_backbones.detector_config.detector import DetectorConfig
from mmdet_backbones.detector_config.tree import plain
from mmdet_backbones.errors import UserError

# What a check builds one after the other, and stops at the first that it cannot have.
_NEEDED = ('net', 'outputs', 'levels', 'reader')


@dataclass
class Draft:
    """A config file that inherits from a base, and what is written in it.

    Attributes:
        folder: Where the file lies.
        base: What it inherits from.
        settings: What stands in the file.
    """

    folder: Path
    base: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self.settings = deepcopy(self.settings)

    def read(self) -> Config:
        return load(self.folder, self.base, **self.settings)

    def write(self, text: str) -> None:
        """Write a line ``key = value``; lists of the base are copied first."""
        key, _, value = text.partition(' = ')
        *steps, last = key.split('.')
        whole, own = plain(self.read()._cfg_dict.to_dict()), self.settings
        for step in steps:
            index = int(step) if isinstance(own, list) else step
            whole = whole[index] if _has(whole, index) else {}
            if not _has(own, index):
                own[index] = whole if isinstance(whole, list) else {}
            own = own[index]
        own[int(last) if isinstance(own, list) else last] = ast.literal_eval(value)

    def remove(self, key: str) -> None:
        """Take out what stands in this file; a KeyError if it does not."""
        own: Any = self.settings
        *steps, last = key.split('.')
        for step in steps:
            own = own[int(step) if isinstance(own, list) else step]
        del own[last]


def _has(node: Any, step: Any) -> bool:
    return node[step] is not None if isinstance(node, list) else step in node


def told_lines(finding: Finding) -> tuple[str, ...]:
    """The lines of a finding, those told in the sentence about a backbone included."""
    if finding.cure or finding.remove or finding.rule not in ('backbone', 'weights'):
        return finding.cure
    place = re.sub(r'\.(init_cfg|pretrained|checkpoint_path)$', '', finding.key)
    for told in re.finditer(r'\b[wW]rite (?=\w+=)', finding.problem):
        arguments = _arguments(finding.problem[told.end() :])
        # What only the author of the config knows stands in angle brackets.
        if arguments and '<' not in repr(arguments):
            return tuple(f'{place}.{name} = {arguments[name]!r}' for name in arguments)
    return ()


def _arguments(text: str) -> dict[str, Any]:
    """The longest run of ``name=value, ...`` at the start of a text."""
    for end in range(len(text), 0, -1):
        try:
            call = ast.parse(f'dict({text[:end]})', mode='eval').body
            if isinstance(call, ast.Call) and not call.args:
                return eval(compile(ast.Expression(call), '', 'eval'), {'dict': dict})
        except (SyntaxError, NameError, ValueError):
            continue
    return {}


@dataclass
class Tally:
    """What came of a number of configs.

    Attributes:
        lines: Lines that were written or taken out.
        findings: Findings that said so.
        without: Findings that no line mends, by rule.
        rules: Of all that was found.
    """

    lines: int = 0
    findings: int = 0
    without: Counter = field(default_factory=Counter)
    rules: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        kinds = ', '.join(f'{n} {rule}' for rule, n in self.without.most_common())
        return (
            f'applied {self.lines} lines of {self.findings} findings, cured '
            f'{self.findings}; without a line: {kinds or "none"}'
        )


def follow(draft: Draft, tally: Tally, fast: bool = True, rounds: int = 5) -> Tally:
    """Write all that the check says, check again, until it says nothing more.

    What was found has to be gone, and errors may come to light only where the check
    got further than before.

    Args:
        draft: The config with its mistakes; changed.
        tally: Where the counts are added.
        fast: As for ``check_config``.
        rounds: How often at most.
    """
    findings, reach = _check(draft, fast)
    assert findings, 'nothing was found'
    told: list[Finding] = []
    for _ in range(rounds):
        tally.rules |= {finding.rule for finding in findings}
        told = [
            finding for finding in findings if told_lines(finding) or finding.remove
        ]
        if not told:
            break
        for finding in told:
            lines = told_lines(finding)
            for text in lines:
                draft.write(text)
            for key in finding.remove:
                draft.remove(key)
            tally.lines += len(lines) + len(finding.remove)
        before, reached = findings, reach
        findings, reach = _check(draft, fast)
        seen = f'{describe(before)}\nwritten:\n{draft.settings}\n{describe(findings)}'
        left = {(f.rule, f.key) for f in told} & {(f.rule, f.key) for f in findings}
        same = [f for f in findings if (f.rule, f.key) in left]
        # Of one place the next mistake may come to light, never the same.
        assert not {f.problem for f in same} & {f.problem for f in told}, seen
        known = {(f.rule, f.key) for f in before}
        new = [f for f in findings if (f.rule, f.key) not in known]
        errors = [f for f in new if f.severity == 'error']
        assert not errors or reach > reached, seen
        tally.findings += len(told)
    assert not told, f'no end after {rounds} rounds: {describe(findings)}'
    tally.without.update(finding.rule for finding in findings)
    return tally


def _check(draft: Draft, fast: bool) -> tuple[list[Finding], int]:
    config = draft.read()
    findings = check_config(config, fast=fast, num_gpus=8)
    detector, reach = DetectorConfig(config), 0
    for needed in _NEEDED:
        try:
            getattr(detector, needed)
        except UserError:
            break
        reach += 1
    return findings, reach


def applied(config: Config, lines: tuple[str, ...]) -> Config:
    """Write ``key = value`` lines into a copy of a config that inherits nothing."""
    content = config.to_dict()
    for text in lines:
        key, _, value = text.partition(' = ')
        *place, last = key.split('.')
        node = content
        for step in place:
            node = (
                node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
            )
        written = ast.literal_eval(value)
        if isinstance(written, dict):
            # Nothing is left that it could delete.
            written.pop('_delete_', None)
        node[int(last) if isinstance(node, list) else last] = written
    return Config(content)
