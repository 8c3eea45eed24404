"""The page of the documentation on what of timm can be a backbone."""

from __future__ import annotations

from .figures import SourceFigures


def timm_page(figures: SourceFigures) -> str:
    """Write ``docs/timm.md``.

    Args:
        figures: Of timm.

    Returns:
        Markdown: how many models there are, and why the others cannot be used.
    """
    models = figures.models
    usable = sum(model.usable for model in models.values())
    refused = {n: m.refused for n, m in models.items() if m.refused is not None}
    failed = {n: m.failed for n, m in models.items() if m.failed is not None}
    return '\n'.join(
        [
            '# timm models as backbones',
            '',
            f'Models of timm {figures.version}, each built on the meta device as',
            '`TIMMBackbone` and run. Made by `python tools/update_catalog.py --source',
            'timm` from `mmdet_backbones/catalog/levels.json`; do not edit.',
            '',
            '| models | number |',
            '|---|---|',
            f'| built | {len(models)} |',
            f'| usable | {usable} |',
            f'| refused | {len(refused)} |',
            f'| failed | {len(failed)} |',
            *_reasons('Refused', refused),
            *_reasons('Failed', failed),
            '',
        ]
    )


def _reasons(title: str, reasons: dict[str, str]) -> list[str]:
    if not reasons:
        return []
    lines = ['', f'## {title}', '', '| model | reason |', '|---|---|']
    for name, reason in sorted(reasons.items()):
        short = reason.partition('cannot be a backbone: ')[2] or reason
        cell = ' '.join(short.split()).replace('|', '\\|')
        lines.append(f'| `{name.removeprefix("timm/")}` | {cell} |')
    return lines
