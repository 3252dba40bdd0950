"""Build hook of the wheel: the packages and commands at the top of the repository become one package, `sidequest`.

Their imports of each other and the commands in their messages are rewritten on the way; lines keep their numbers.
An editable install is the checkout itself (sidequest/__init__.py).
"""

import ast
import re
import shutil
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "sidequest"
ZOO = ("agent.safetensors", "goal_space.safetensors", "config.yaml", "report.json")


class WheelHook(BuildHookInterface[Any]):  # type: ignore[misc]
    """What hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the package and hand it to the wheel; of an editable install there is nothing to write."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="sidequest-wheel-")  # until the build ends
        write_package(Path(self.root), Path(self._folder.name))
        build_data["force_include"][self._folder.name] = PACKAGE


def write_package(root: Path, package: Path) -> None:
    """Write the package that the wheel holds.

    Args:
        root: of the repository.
        package: a folder, which becomes `sidequest`.
    """
    commands = sorted(file.stem for file in root.glob("*.py"))
    packages = sorted(file.parent.name for file in root.glob("*/__init__.py") if file.parent.name != PACKAGE)
    own = [file for name in packages for file in (root / name).rglob("*") if "__pycache__" not in file.parts]
    zoo = [file for name in ZOO for file in root.glob(f"zoo/*/{name}")]
    for file in [*root.glob("*.py"), root / PACKAGE / "__main__.py", *filter(Path.is_file, own), *zoo]:
        copy = package / str(file.relative_to(root)).removeprefix(f"{PACKAGE}/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".py":
            copy.write_text(rewrite(file.read_text(), packages, commands))
        else:
            shutil.copyfile(file, copy)
    (package / "__init__.py").write_text(f'"""{PACKAGE.capitalize()}."""\n')
    (package / "py.typed").touch()


def rewrite(source: str, packages: list[str], commands: list[str]) -> str:
    """The source of a module of the repository as that of a module of the package.

    Args:
        source: Python.
        packages: at the top of the repository.
        commands: modules there; `python train.py` becomes `sidequest train`, wherever it stands.
    """
    own = {*packages, *commands}
    code = re.sub(rf"\bpython ({'|'.join(commands)})\.py\b", rf"{PACKAGE} \1", source).encode()
    lines = [0, *accumulate(len(line) + 1 for line in code.split(b"\n"))]  # where each begins
    nodes: list[Any] = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        begin, end = lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset
        code = code[:begin] + _statement(node, code[begin:end].decode(), own).encode() + code[end:]
    return code.decode()


def _statement(node: Any, statement: str, own: set[str]) -> str:
    """An import statement, with `sidequest.` before the modules in `own`."""
    if isinstance(node, ast.Import):
        return "; ".join(_import(name, own) for name in node.names)
    if node.level or _top(node.module) not in own:
        return statement
    return statement.replace(node.module, f"{PACKAGE}.{node.module}", 1)


def _import(name: ast.alias, own: set[str]) -> str:
    """The statement for one name of an `import a, b.c, d as e`."""
    top, renamed = _top(name.name), f" as {name.asname}" if name.asname else ""
    if top not in own:
        return f"import {name.name}{renamed}"
    if renamed or name.name == top:
        parent, _, last = f"{PACKAGE}.{name.name}".rpartition(".")
        return f"from {parent} import {last}{renamed}"
    return f"import {PACKAGE}.{name.name}; from {PACKAGE} import {top}"


def _top(name: str) -> str:
    return name.partition(".")[0]
