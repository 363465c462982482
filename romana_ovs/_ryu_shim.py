"""Gives `eventlet.wsgi` the name `ALREADY_HANDLED`, without which Ryu 4.34 cannot be imported.

eventlet dropped the name in 0.30.3 (eventlet/eventlet#733), and `ryu.app.wsgi` still imports it. The file
`romana-ovs-ryu.pth`, installed with the package, calls `install` as every interpreter of the environment
starts, so that plain `ryu-manager` works too. Interpreters that never see eventlet must not pay for that:
nothing but `sys` is imported here, and the name is added when somebody imports `eventlet.wsgi`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MODULE = "eventlet.wsgi"
_NAME = "ALREADY_HANDLED"
_VALUE: tuple[bytes, ...] = ()
"""What a WSGI application returns that has answered by itself: nothing more to send."""


def install() -> None:
    """Adds the name to `eventlet.wsgi`: at once if it is imported, else when it is. Repeating it does nothing."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _complete(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _complete(module: ModuleType) -> None:
    if not hasattr(module, _NAME):
        setattr(module, _NAME, _VALUE)


class _Finder:
    """Knows one module only: finds it as the other finders do, and completes it once it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                return _completing(spec)
        return None


def _completing(spec: ModuleSpec) -> ModuleSpec:
    loader = spec.loader
    if loader is None:
        return spec
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _complete(module)

    # On this one loader only; a loader of our own would have to imitate all that tracebacks and inspect ask of it.
    loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec
