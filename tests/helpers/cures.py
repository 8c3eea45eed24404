"""Apply the lines that a check writes, as a person would."""

import ast

from mmengine.config import Config


def cured(config: Config, lines) -> Config:
    """Write ``key = value`` lines into a copy of a config."""
    new = Config(config.to_dict())
    for line in lines:
        key, _, value = line.partition(' = ')
        new.merge_from_dict({key: ast.literal_eval(value)})
    return new
