"""Sidequest as one package; nothing lives here but names.

In a checkout `sidequest.agents` is the very module `agents`, so that a module of the user's writes
`from sidequest.aux_tasks import AuxTask` wherever it runs. The wheel has the modules themselves in this folder and an
empty file in place of this one (scripts/wheel.py).
"""

import sys
from collections.abc import Sequence
from importlib import import_module, util
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[1]


class Alias(MetaPathFinder, Loader):
    """Finds `sidequest.X` where X is a module at the top of the checkout, or below one, and gives X itself."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """See `MetaPathFinder`."""
        package, _, real = name.partition(".")
        top = ROOT / real.partition(".")[0]
        if package != __name__ or not (top.with_suffix(".py").is_file() or (top / "__init__.py").is_file()):
            return None
        found = util.find_spec(real)
        return found and ModuleSpec(name, self, origin=found.origin)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module, under its own name."""
        module = import_module(spec.name.partition(".")[2])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; importlib has replaced what it knew of itself."""
        assert module.__spec__
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m sidequest.train`."""
        found = util.find_spec(fullname.partition(".")[2])
        assert found
        assert isinstance(found.loader, InspectLoader)
        return found.loader.get_code(found.name)


sys.meta_path.insert(0, Alias())  # before the one that would load the file a second time
