"""Hooks for mmengine's Runner."""

from __future__ import annotations

import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from ..backbones.contract import Backbone
from ..files import write_atomically
from ..registry import HOOKS


@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Write what was loaded into the backbones, and load nothing for a resumed run.

    ``work_dir/pretrained_report.json`` has one entry by name of module for each
    backbone that loaded pretrained weights in this run. A run that goes on from a
    checkpoint gets all its weights from there, so its backbones read no others, and
    the report of the first start stays. Use it as
    ``custom_hooks = [dict(type='mmdet_backbones.PretrainedReportHook')]``.
    """

    priority = 'VERY_HIGH'
    file_name = 'pretrained_report.json'

    def before_run(self, runner: Runner) -> None:
        """Tell backbones to read nothing if a checkpoint is going to be resumed."""
        if runner._resume and (
            runner._load_from or find_latest_checkpoint(runner.work_dir)
        ):
            for backbone in _backbones(runner).values():
                backbone.reads_weights = False

    def before_train(self, runner: Runner) -> None:
        """Write the report, in one step, from the main process."""
        reports = {
            name: backbone.load_report.to_dict()
            for name, backbone in _backbones(runner).items()
            if backbone.load_report is not None
        }
        if not reports or not is_main_process():
            return
        content = json.dumps(reports, indent=1) + '\n'
        write_atomically(Path(runner.work_dir) / self.file_name, content.encode())


def _backbones(runner: Runner) -> dict[str, Backbone]:
    return {
        name.removeprefix('module.'): module
        for name, module in runner.model.named_modules()
        if isinstance(module, Backbone)
    }
