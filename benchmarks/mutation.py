"""Mutation score of the tests of agents, replay (with datasets) and aux_tasks.

    pip install 'cosmic-ray>=8.7,<9' coverage
    python benchmarks/mutation.py [tree=.] [mutants=50] [seed=0] [out=results/mutation.json]

Changes one operator, number, condition or decorator of a copy of `tree` at a time (the operators of cosmic-ray) and
runs tests until one fails. A mutant survives if none does. `mutants` places of each package are drawn with `seed`, and
one change at each. Type annotations are left out, and changes that nearly always raise, such as a float product to a
bit operation. The tests of a mutant are the files of `tests/<package>` that execute its line: first those named after
the module, then the others, quickest first. A larger `mutants` extends the sample of a smaller one.

mutmut 3 does not fit this code: it replaces functions with wrappers, which hides the signatures that options of tasks
are generated from, and it leaves out code that runs at import.
"""

import ast
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import unified_diff
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from scipy.stats import binomtest

try:
    import_module("coverage")
    from cosmic_ray.commands import init
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is missing: pip install 'cosmic-ray>=8.7,<9' coverage")

# datasets was split off from replay
PACKAGES = {"agents": ["agents"], "replay": ["replay", "datasets"], "aux_tasks": ["aux_tasks"]}
PRELOADED = [
    "torch",
    "numpy",
    "pytest",
    "hypothesis",
    "scipy.stats",
    "sklearn.datasets",
    "gymnasium",
    "hydra",
]
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "data", "zoo", "results", "docs", "multirun")
PATIENCE = 5.0  # times as long as on the unchanged tree, and half a minute, before a mutant counts as a timeout
ALIKE = [{"Add", "Sub", "Mul", "Div"}, {"Div", "FloorDiv", "Mod"}, {"Mul", "Pow"}, {"BitOr", "BitAnd", "BitXor"}]
UNARY = {"Delete_Not", "Delete_USub", "Delete_Invert", "USub_UAdd"}
KILLED, SURVIVED, TIMEOUT, NOT_COVERED = "killed", "survived", "timeout", "not covered"


class TestFile(NamedTuple):
    """A file of tests on the unchanged tree."""

    path: str
    seconds: float
    lines: dict[str, set[int]]  # of the tree's modules that it executes


class Mutant(NamedTuple):
    """One change of one place."""

    package: str
    module: str
    line: int
    change: str  # "old line -> new line"
    code: str


# --- mutants ---


def annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Begin and end, as (line, column), of all type annotations."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        found += [getattr(node, name, None) for name in ("annotation", "returns")]
    return [((a.lineno, a.col_offset), (a.end_lineno or 0, a.end_col_offset or 0)) for a in found if a is not None]


def plausible(operator: str) -> bool:
    """Whether an operator of the tool, such as core/ReplaceBinaryOperator_Add_Mul, makes code that may run."""
    kind, _, change = operator.removeprefix("core/").partition("_")
    if kind == "ReplaceBinaryOperator":
        return any(set(change.split("_")) <= group for group in ALIKE)
    return kind != "ReplaceUnaryOperator" or change in UNARY


def mutants_of(package: str, tree: Path, count: int, seed: int) -> list[Mutant]:
    """`count` random places of a package's modules with one random change each."""
    modules = sorted(path for folder in PACKAGES[package] for path in (tree / folder).rglob("*.py"))
    hidden = {str(path): annotations(ast.parse(path.read_text())) for path in modules}
    places: dict[tuple[str, tuple[int, int]], list[tuple[str, int]]] = {}
    with use_db(":memory:", WorkDB.Mode.create) as items:
        init(modules, items, {})
        for item in items.work_items:
            (mutation,) = item.mutations
            path, begin = str(mutation.module_path), tuple(mutation.start_pos)
            if plausible(mutation.operator_name) and not any(low <= begin < high for low, high in hidden[path]):
                places.setdefault((path, begin), []).append((mutation.operator_name, mutation.occurrence))
    rng = random.Random(f"{package} {seed}")
    drawn = [(place, rng.choice(sorted(places[place]))) for place in sorted(places, key=lambda _: rng.random())]
    found = (made(package, tree, Path(path), begin, change) for (path, begin), change in drawn)
    return list(islice(filter(None, found), count))


def made(package: str, tree: Path, path: Path, begin: tuple[int, int], change: tuple[str, int]) -> Mutant | None:
    """The mutant of one change of the tool, by operator and occurrence; None where it is no Python."""
    before = path.read_text()
    try:
        after = mutate_code(before, get_operator(change[0])(), change[1])
        compile(after, path, "exec")
    except (SyntaxError, AttributeError):  # the tool misreads a bare * in signatures and dotted names of exceptions
        return None
    told = [line for line in unified_diff(before.splitlines(), after.splitlines(), n=0) if line[:2] not in ("--", "++")]
    old, new = ("; ".join(line[1:].strip() for line in told if line[0] == sign) for sign in "-+")
    return Mutant(package, str(path.relative_to(tree)), begin[0], f"{old} -> {new}", after)


# --- tests, each run in a fork of this process, which has the libraries loaded ---


def pytest_in(tree: Path, files: list[str]) -> int:
    """Exit code of the tests of some files, in this process; they end at the first failure."""
    os.setsid()
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    return int(import_module("pytest").main(["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *files]))


def measured(tree: Path, file: str, out: Path) -> None:
    """Write the exit code, the seconds and the executed lines of a file of tests to `out`."""
    coverage = import_module("coverage").Coverage(data_file=None, source=[str(tree)], config_file=False)
    start = time.perf_counter()
    coverage.start()
    code = pytest_in(tree, [file])
    coverage.stop()
    data = coverage.get_data()
    lines = {os.path.relpath(path, tree): data.lines(path) for path in data.measured_files()}
    out.write_text(json.dumps({"code": code, "seconds": time.perf_counter() - start, "lines": lines}))


def tested(tree: Path, files: list[str]) -> None:
    """Exit with pytest's code."""
    sys.dont_write_bytecode = True
    os._exit(pytest_in(tree, files))


def forked(work: Callable[..., None], arguments: tuple[Any, ...], limit: float | None) -> int | None:
    """Exit code of a call in a process of its own; None if it takes more than `limit` seconds."""
    process = get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(limit)
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return None
    return process.exitcode


def test_files(package: str, tree: Path) -> list[TestFile]:
    """All files of a package's tests, measured on the unchanged tree.

    Raises:
        RuntimeError: a test fails on the unchanged tree.
    """
    folders = [tree / "tests" / folder for folder in PACKAGES[package]]
    found = []
    for path in sorted(path for folder in folders for path in folder.glob("test_*.py")):
        name = str(path.relative_to(tree))
        forked(measured, (tree, name, out := tree / "coverage.json"), limit=None)
        result = json.loads(out.read_text())
        if result["code"] not in (0, 5):  # 5: all of its tests are slow ones
            raise RuntimeError(f"{name} fails on the unchanged tree")
        lines = {module: set(lines) for module, lines in result["lines"].items()}
        found.append(TestFile(name, result["seconds"], lines))
        print(f"{name}: {result['seconds']:.1f} s", flush=True)
    return found


def tests_of(mutant: Mutant, files: list[TestFile]) -> list[TestFile]:
    """The files that run for a mutant, in order."""
    stem = Path(mutant.module).stem
    covering = [file for file in files if mutant.line in file.lines.get(mutant.module, ())]
    return sorted(covering, key=lambda file: (not Path(file.path).stem.startswith(f"test_{stem}"), file.seconds))


@contextmanager
def applied(mutant: Mutant, tree: Path) -> Iterator[None]:
    """The tree with the change; afterwards the file is as it was."""
    path = tree / mutant.module
    before, status = path.read_text(), path.stat()
    path.write_text(mutant.code)
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # its compiled file is valid again


def outcome(mutant: Mutant, tree: Path, files: list[TestFile]) -> str:
    """What the tests say to a mutant."""
    chosen = tests_of(mutant, files)
    if not chosen:
        return NOT_COVERED
    limit = 30 + PATIENCE * sum(file.seconds for file in chosen)
    with applied(mutant, tree):
        code = forked(tested, (tree, [file.path for file in chosen]), limit)
    return TIMEOUT if code is None else SURVIVED if code == 0 else KILLED


# --- the result ---


def summary(outcomes: list[tuple[Mutant, str]]) -> dict[str, Any]:
    """Counts of a package, the share of mutants that the tests found with Wilson's 95 % interval, and the others."""
    told = [verdict for _, verdict in outcomes]
    found, count = told.count(KILLED) + told.count(TIMEOUT), len(told)
    low, high = binomtest(found, count).proportion_ci(method="wilson")
    left = [f"{m.module}:{m.line}: {m.change} ({v})" for m, v in outcomes if v in (SURVIVED, NOT_COVERED)]
    counts = {verdict: told.count(verdict) for verdict in (KILLED, TIMEOUT, SURVIVED, NOT_COVERED)}
    interval = [round(low, 3), round(high, 3)]
    return {"mutants": count, **counts, "found": round(found / count, 3), "interval": interval, "survivors": left}


def main(words: list[str]) -> None:
    """Measure and write."""
    given = {"tree": ".", "mutants": "50", "seed": "0", "out": "results/mutation.json"}
    given |= dict(word.split("=", 1) for word in words)  # not by common.options, which would import the packages
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    for name in PRELOADED:
        import_module(name)
    out, start = Path(given["out"]).resolve(), time.perf_counter()
    content: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/mutation.py", *words]),
        "options": given,
    }
    content |= {"tool": f"cosmic-ray {version('cosmic-ray')}", "packages": {}}
    with TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        shutil.copytree(given["tree"], tree, ignore=LEFT_OUT)
        for package in PACKAGES:
            files, outcomes = test_files(package, tree), []
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            for mutant in mutants_of(package, tree, int(given["mutants"]), int(given["seed"])):
                outcomes.append((mutant, outcome(mutant, tree, files)))
                print(f"{mutant.module}:{mutant.line}: {mutant.change}: {outcomes[-1][1]}", flush=True)
                content["packages"][package] = summary(outcomes)
                content["seconds"] = round(time.perf_counter() - start)
                out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
