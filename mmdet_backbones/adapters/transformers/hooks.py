"""Hooks by which transformers collects what its blocks return, made to be pickled."""

from __future__ import annotations

from importlib import import_module
from inspect import getclosurevars, signature
from typing import Any

from torch import nn


class CapturingHook:
    """A hook of transformers that can be pickled, and is installed anew when read.

    Args:
        module: That has the function which installs such hooks.
        function: Its name.
        arguments: For it, after the module that gets the hook.
    """

    def __init__(self, module: str, function: str, arguments: dict[str, Any]) -> None:
        self._origin = module, function, arguments
        holder = nn.Identity()
        getattr(import_module(module), function)(holder, **arguments)
        (self._hook,) = holder._forward_hooks.values()

    def __call__(self, *args: Any) -> Any:
        """Do what the hook does."""
        return self._hook(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return CapturingHook, self._origin


def make_picklable(net: nn.Module) -> None:
    """Replace the hooks of a net that are functions inside functions.

    Args:
        net: Of transformers, changed in place.
    """
    for module in net.modules():
        for key, hook in module._forward_hooks.items():
            function, _, inner = getattr(hook, '__qualname__', '').partition(
                '.<locals>.'
            )
            if not inner or not hook.__module__.startswith('transformers.'):
                continue
            installer = getattr(import_module(hook.__module__), function)
            kept = getclosurevars(hook).nonlocals
            known = list(signature(installer).parameters)[1:]
            arguments = {name: kept[name] for name in known if name in kept}
            module._forward_hooks[key] = CapturingHook(
                hook.__module__, function, arguments
            )
