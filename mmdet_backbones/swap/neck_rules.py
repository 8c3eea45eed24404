"""Where plugins of users import the table of necks from."""

from ..detector_config.neck_rules import NeckRule, register_neck_rule

__all__ = ['NeckRule', 'register_neck_rule']
