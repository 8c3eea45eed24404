"""The table of cases: every operator with a substitute."""

from __future__ import annotations

from ops.box_cases import box_cases
from ops.case import Case
from ops.conv_cases import conv_cases
from ops.dense_cases import dense_cases
from ops.roi_cases import roi_cases

CASES: list[Case] = [*box_cases(), *roi_cases(), *conv_cases(), *dense_cases()]

# Those that mmcv has a CPU kernel of, to compare with.
COMPILED_CASES = [case for case in CASES if case.loops is None]
LOOP_CASES = [case for case in CASES if case.loops is not None]

assert len({case.id for case in CASES}) == len(CASES), 'two cases share a name'
