"""The scope ``mmclipdis``: mmengine's root registries, mmseg's and mmdet's, as a model needs them.

Modules of this package register where they belong (``mmengine.registry``, ``mmseg.registry``,
``mmdet.registry``), and its configs name one of these scopes. mmengine itself puts everything that
comes by a name ``mmclipdis::...`` into a scope of that name: a ``_base_`` of a config, what
``get_model`` of its hub builds, an inferencer with ``scope='mmclipdis'``. Here this scope becomes
that of the library that has the outermost type, which then builds the parts as well. Nothing is
registered here.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator

import mmengine.registry
from mmengine.registry import DefaultScope, Registry

SCOPE = "mmclipdis"
LIBRARIES = ("mmseg", "mmdet")
_count = itertools.count()


def libraries() -> list[str]:
    """The scopes to look in, the one that was in use before ours at the front."""
    scopes = [scope.scope_name for scope in DefaultScope._instance_dict.values()]
    last = next((scope for scope in reversed(scopes) if scope != SCOPE), None)
    known = [*LIBRARIES, "mmengine"]
    return known if last not in known else [last, *(scope for scope in known if scope != last)]


class LibraryRegistry(Registry):
    """Gives what mmseg or mmdet has under a name, and else what mmengine has."""

    def get(self, key: str) -> type | None:
        """Return the type, and make the scope that of its library while it is being built."""
        for scope in libraries():
            registry = self._of(scope)
            if registry is None:
                continue
            registry.import_from_location()
            if key in registry.module_dict:
                current = DefaultScope.get_current_instance()
                if current is not None and current.scope_name == SCOPE and scope in LIBRARIES:
                    # undone with the scope that was entered for it: overwrite_default_scope
                    DefaultScope.get_instance(f"{SCOPE}-{next(_count)}", scope_name=scope)
                return registry.get(key)
        return super().get(key)

    def _of(self, scope: str) -> Registry | None:
        """The registry of the same kind of a library, None where that is not installed."""
        assert self.parent is not None
        if scope == "mmengine":
            return self.parent
        try:
            importlib.import_module(f"{scope}.registry")
        except ModuleNotFoundError:
            return None
        return self.parent.children.get(scope)


def _roots() -> Iterator[tuple[str, Registry]]:
    for name, registry in vars(mmengine.registry).items():
        if isinstance(registry, Registry):
            yield name, registry


for _name, _root in _roots():
    globals()[_name] = LibraryRegistry(f"{SCOPE} {_root.name}", scope=SCOPE, parent=_root)
