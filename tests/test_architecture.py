"""The house stands on its floors: who may import whom, who may print, who may touch raw bytes.

Every rule is a function from one module's syntax tree to complaints. It is held against all of
the program, and against small snippets that break it, so that none passes for being blind.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parent.parent

FLOORS: Final = {
    "": 0,  # pcapdiag itself: its version
    **dict.fromkeys(
        (
            *("errors", "memory", "beside", "spool", "protocols", "addresses", "text"),
            *("decode_note", "schema"),
            *("result", "site"),
        ),
        0,
    ),
    "capture": 1,
    "decode": 2,
    "flows": 3,
    "export": 3,
    "cluster": 4,
    "kernel": 4,
    "facts": 4,
    "case": 5,
    "rule": 6,
    "rules": 7,
    "registry": 8,
    "engine": 9,
    "folding": 9,
    "processes": 9,
    "workers": 9,
    "plan": 9,
    "diff": 9,
    "exhibits": 9,
    "dissect": 8,  # a side floor: asked by the engine for a frame in a dissector's words
    "report": 10,  # a side floor: asked by the command line only
    "cli": 10,
    "__main__": 11,
}
"""Part (first name below pcapdiag) -> floor. A part not named here has no place in the house."""

GROUND: Final = frozenset(part for part, floor in FLOORS.items() if floor == 0)

ONLY_ON: Final = {
    "report": frozenset({"", "result", "text", "addresses", "errors", "protocols"}),
    "dissect": GROUND,
    "kernel": GROUND,  # pure models: no captures in them
    "rules": frozenset({"rule", "protocols", "kernel"}),
}
"""Parts that may not import all that lies below them, and what they may."""

HEAVY: Final = frozenset({"numpy", "polars", "jinja2", "rich", "scapy", "pyshark"})
"""What importing the command line must not load: together they take longer than `--help` may."""

FUNCTIONS_ONLY: Final = frozenset({"scapy", "pyshark"})
"""Slow to import, with side effects, and needed by few runs: imported where they are used."""

TOP_LEVEL: Final = frozenset(
    {"pcapdiag", "rules", "samples", "tests"}
    | {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
)
"""What may lie in the root of the repository, beside names that begin with a dot."""


@dataclass(frozen=True)
class Import:
    """One imported module; `lazy` inside a function, `typing` below `if TYPE_CHECKING`."""

    module: str
    line: int
    lazy: bool
    typing: bool


@dataclass(frozen=True)
class Module:
    """One file of the program under its dotted name."""

    name: str
    tree: ast.Module
    package: bool = False  # an __init__.py

    @property
    def part(self) -> str:
        """The first name below pcapdiag; "" for pcapdiag itself."""
        return _part(self.name)


def _part(name: str) -> str:
    return name.partition(".")[2].partition(".")[0]


def _module(name: str, source: str) -> Module:
    return Module(name, ast.parse(source))


@cache
def _program() -> list[Module]:
    """Return all modules, parsed once for all tests; nobody changes them."""
    modules = []
    for folder, package in ((ROOT / "pcapdiag", "pcapdiag"), (ROOT / "rules", "pcapdiag.rules")):
        for path in sorted(folder.rglob("*.py")):
            names = list(path.relative_to(folder).with_suffix("").parts)
            is_package = names[-1] == "__init__"
            name = ".".join([package, *(names[:-1] if is_package else names)])
            tree = ast.parse(path.read_text(encoding="utf-8"), path.name)
            modules.append(Module(name, tree, is_package))
    return modules


def _imports(module: Module) -> list[Import]:
    """Return all that a module imports, relative names resolved, wherever the import stands."""
    found = []

    def visit(node: ast.AST, *, lazy: bool, typing: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, lazy, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.name.split(".")
                keep = len(parents) - node.level + module.package
                base = ".".join([*parents[:keep], *filter(None, [base])])
            for alias in node.names:
                # `from pcapdiag import schema` imports the module, `... import __version__` not
                inner = base == "pcapdiag" and not alias.name.startswith("__")
                name = f"{base}.{alias.name}" if inner else base
                found.append(Import(name, node.lineno, lazy, typing))
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                visit(child, lazy=inside, typing=True)
            for child in node.orelse:
                visit(child, lazy=inside, typing=typing)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child, lazy=inside, typing=typing)

    visit(module.tree, lazy=False, typing=False)
    return found


def _inside(name: str) -> bool:
    return name == "pcapdiag" or name.startswith("pcapdiag.")


def climbs(module: Module) -> Iterator[str]:
    """Complain about imports that do not go down, and about parts without a floor."""
    if module.part not in FLOORS:
        yield f"{module.name} is on no floor: give {module.part!r} one"
        return
    allowed = ONLY_ON.get(module.part)
    for imported in filter(lambda each: _inside(each.module), _imports(module)):
        part = _part(imported.module)
        where = f"{module.name}:{imported.line} imports {imported.module}"
        if part == module.part:
            continue
        if part not in FLOORS:
            yield f"{where}, which is on no floor"
        elif FLOORS[part] > FLOORS[module.part]:
            yield f"{where}, {FLOORS[part] - FLOORS[module.part]} floors up"
        elif allowed is not None and part not in allowed:
            yield f"{where}, but {module.part} stands on {', '.join(sorted(allowed))} only"


def rules_reach_out(module: Module) -> Iterator[str]:
    """Complain where a rule imports what only others need, or another rule."""
    if module.part != "rules":
        return
    outside = sys.stdlib_module_names | {"polars"}
    for imported in _imports(module):
        where = f"{module.name}:{imported.line} imports {imported.module}"
        if _part(imported.module) == "rules" or imported.module.split(".")[0] == "rules":
            yield f"{where}: rules know nothing of each other"
        elif not _inside(imported.module) and imported.module.split(".")[0] not in outside:
            yield f"{where}, which is neither polars nor the standard library"


def imports_eagerly(module: Module) -> Iterator[str]:
    """Complain about scapy or pyshark outside functions."""
    for imported in _imports(module):
        if imported.module.split(".")[0] in FUNCTIONS_ONLY and not imported.lazy:
            yield f"{module.name}:{imported.line} imports {imported.module} outside a function"


_TERMINAL_CALLS: Final = frozenset({"print", "input", "exit", "quit", "breakpoint", "SystemExit"})
_TERMINAL_ATTRIBUTES: Final = frozenset(
    {("sys", name) for name in ("exit", "stdout", "stderr", "stdin", "argv")}
    | {("os", name) for name in ("environ", "environb", "getenv", "putenv", "_exit", "abort")}
)


def acts_as_program(module: Module) -> Iterator[str]:
    """Complain where anything but the command line prints, exits or reads the environment."""
    if module.part in {"cli", "__main__"}:
        return
    for node in ast.walk(module.tree):
        name = None
        if isinstance(node, ast.Name) and node.id in _TERMINAL_CALLS:
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in _TERMINAL_ATTRIBUTES:
                name = f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "", alias.name) for alias in node.names}
            name = next((".".join(each) for each in names & _TERMINAL_ATTRIBUTES), None)
        if name is not None:
            yield f"{module.name}:{node.lineno} uses {name}: only cli may"
    for imported in _imports(module):
        if imported.module.split(".")[0] == "click":
            yield f"{module.name}:{imported.line} imports click: only cli may"


_BYTE_READERS: Final = frozenset(
    {"frombuffer", "from_bytes", "unpack", "unpack_from", "memoryview"}
)


def reads_bytes(module: Module) -> Iterator[str]:
    """Complain where decode/ looks at frame bytes anywhere but in fetch.py.

    What can be said of syntax: frame bytes are `.data` of a batch; nothing else may index that,
    give it another name, or turn bytes into numbers.
    """
    if module.part != "decode" or module.name == "pcapdiag.decode.fetch":
        return
    for node in ast.walk(module.tree):
        what = None
        if isinstance(node, ast.Subscript) and _is_data(node.value):
            what = "indexes"
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and _is_data(node.value):
            what = "renames"
        elif isinstance(node, ast.Attribute) and _is_data(node.value):
            what = "calls a method of"
        if what is not None:
            yield f"{module.name}:{node.lineno} {what} frame bytes: only fetch.py may"
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, "attr", getattr(called, "id", None))
        if name in _BYTE_READERS:
            yield f"{module.name}:{node.lineno} calls {name}: only fetch.py reads bytes"


def _is_data(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "data"


COMPLAINTS: Final = (climbs, rules_reach_out, imports_eagerly, acts_as_program, reads_bytes)


@pytest.mark.parametrize("complaints", COMPLAINTS, ids=lambda function: function.__name__)
def test_the_program_gives_no_cause(complaints: Callable[[Module], Iterator[str]]) -> None:
    """All of pcapdiag/ and rules/ keep the rule."""
    program = _program()
    assert {"pcapdiag", "pcapdiag.schema", "pcapdiag.rules"} <= {each.name for each in program}
    assert [text for module in program for text in complaints(module)] == []


BROKEN: Final = [
    (climbs, "pcapdiag.schema", "from pcapdiag import capture"),
    (climbs, "pcapdiag.schema", "import pcapdiag.capture.reader"),
    (climbs, "pcapdiag.decode.tcp", "from pcapdiag.flows.tcp import histories"),
    (climbs, "pcapdiag.decode.tcp", "def late():\n    from pcapdiag.case import Case"),
    (climbs, "pcapdiag.decode.tcp", "if TYPE_CHECKING:\n    from pcapdiag.case import Case"),
    (climbs, "pcapdiag.decode.tcp", "from ..flows import tcp"),
    (climbs, "pcapdiag.engine", "from pcapdiag.cli import main"),
    (climbs, "pcapdiag.report.html", "from pcapdiag.engine import analyze"),
    (climbs, "pcapdiag.report.html", "from pcapdiag import schema"),
    (climbs, "pcapdiag.kernel.netfilter", "from pcapdiag.flows import tcp"),
    (climbs, "pcapdiag.dissect", "from pcapdiag.capture.reader import read_frames"),
    (climbs, "pcapdiag.rules.redirect", "from pcapdiag.case import Case"),
    (climbs, "pcapdiag.helpers", "import json"),
    (climbs, "pcapdiag.engine", "from pcapdiag import helpers"),
    (rules_reach_out, "pcapdiag.rules.redirect", "from pcapdiag.rules.source_quench import check"),
    (rules_reach_out, "pcapdiag.rules.redirect", "from . import source_quench"),
    (rules_reach_out, "pcapdiag.rules.redirect", "import rules.source_quench"),
    (rules_reach_out, "pcapdiag.rules.redirect", "import numpy as np"),
    (imports_eagerly, "pcapdiag.decode.rare", "import scapy.all"),
    (imports_eagerly, "pcapdiag.dissect", "try:\n    from pyshark import FileCapture\nfinally: 1"),
    (acts_as_program, "pcapdiag.engine", "print('done')"),
    (acts_as_program, "pcapdiag.engine", "import sys\nsys.exit(1)"),
    (acts_as_program, "pcapdiag.engine", "raise SystemExit(1)"),
    (acts_as_program, "pcapdiag.engine", "import os\njobs = os.environ['JOBS']"),
    (acts_as_program, "pcapdiag.engine", "from os import getenv"),
    (acts_as_program, "pcapdiag.rules.redirect", "import sys\nsys.stderr.write('x')"),
    (acts_as_program, "pcapdiag.report.terminal", "import click"),
    (reads_bytes, "pcapdiag.decode.tcp", "seq = batch.data[34:38]"),
    (reads_bytes, "pcapdiag.decode.tcp", "data = batch.data"),
    (reads_bytes, "pcapdiag.decode.tcp", "words = batch.data.view('>u2')"),
    (reads_bytes, "pcapdiag.decode.tcp", "import numpy as np\nx = np.frombuffer(raw, '>u2')"),
    (reads_bytes, "pcapdiag.decode.tcp", "port = int.from_bytes(raw, 'big')"),
]


@pytest.mark.parametrize(("complaints", "name", "source"), BROKEN)
def test_each_rule_sees_what_breaks_it(
    complaints: Callable[[Module], Iterator[str]], name: str, source: str
) -> None:
    """A snippet that breaks one rule is complained about, by that rule."""
    assert list(complaints(_module(name, source))) != []


KEPT: Final = [
    ("pcapdiag.decode.tcp", "from pcapdiag.capture.frames import FrameBatch"),
    ("pcapdiag.decode.tcp", "from pcapdiag.decode import fetch\nseq = fetch.u32(batch, at)"),
    ("pcapdiag.decode.fetch", "def u8(batch, at):\n    return batch.data[at]"),
    ("pcapdiag.engine", "from pcapdiag import __version__, folding"),
    ("pcapdiag.dissect", "def lines(frame):\n    import pyshark"),
    ("pcapdiag.rules.redirect", "import re\nimport polars as pl\nfrom pcapdiag.rule import Case"),
    ("pcapdiag.rules.redirect", "from pcapdiag.kernel import netfilter"),
    ("pcapdiag.cli.analyze", "import os, sys, click\nprint(os.environ)\nsys.exit(0)"),
]


@pytest.mark.parametrize(("name", "source"), KEPT)
def test_what_is_allowed_is_not_complained_about(name: str, source: str) -> None:
    """Ordinary code passes every rule."""
    module = _module(name, source)
    assert [text for complaints in COMPLAINTS for text in complaints(module)] == []


def _order(program: list[Module]) -> tuple[str, ...]:
    """Return the parts, what is imported first; CycleError where parts need each other."""
    graph: dict[str, set[str]] = {}
    for module in program:
        below = graph.setdefault(module.part, set())
        below |= {_part(each.module) for each in _imports(module) if _inside(each.module)}
        below.discard(module.part)
    return tuple(graphlib.TopologicalSorter(graph).static_order())


def test_parts_of_one_floor_do_not_need_each_other() -> None:
    """Imports between parts never run in a circle, not even lazily."""
    assert _order(_program())
    circle = [
        _module("pcapdiag.engine", "from pcapdiag import workers"),
        _module("pcapdiag.workers", "def late():\n    from pcapdiag import engine"),
    ]
    with pytest.raises(graphlib.CycleError):
        _order(circle)


def _rooms(program: list[Module]) -> tuple[str, ...]:
    """Return the rooms (folders inside a part), what is imported first; types are not asked for."""
    rooms = {each.name for each in program if each.package and each.name.count(".") == 2}
    graph: dict[str, set[str]] = {room: set() for room in rooms}
    for module in program:
        room = ".".join(module.name.split(".")[:3])
        for imported in _imports(module):
            below = ".".join(imported.module.split(".")[:3])
            if {room, below} <= rooms and below != room and not imported.typing:
                graph[room].add(below)
    return tuple(graphlib.TopologicalSorter(graph).static_order())


def test_rooms_do_not_need_each_other() -> None:
    """Nor do imports between the rooms of a part run in a circle, but for types."""
    order = _rooms(_program())
    assert order.index("pcapdiag.cluster.matching") < order.index("pcapdiag.cluster.cast")
    assert order.index("pcapdiag.case.errors") < order.index("pcapdiag.case.sizes")
    circle = [
        Module("pcapdiag.case.errors", ast.Module([], []), package=True),
        Module("pcapdiag.case.sizes", ast.Module([], []), package=True),
        _module("pcapdiag.case.errors.ptb", "from pcapdiag.case.sizes import stalls"),
        _module("pcapdiag.case.sizes.stalls", "from pcapdiag.case.errors.ptb import told"),
    ]
    with pytest.raises(graphlib.CycleError):
        _rooms(circle)


def _loaded(statement: str) -> set[str]:
    """Return which heavy modules a fresh interpreter has after `statement`."""
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    return HEAVY & set(run.stdout.split())


def test_the_command_line_loads_nothing_heavy() -> None:
    """Importing the command line leaves numpy and its like for the commands that need them."""
    assert _loaded("import pcapdiag.cli") == set()
    assert _loaded("import pcapdiag.schema") == {"polars"}  # the test can see one


def test_captures_are_opened_without_polars() -> None:
    """How many threads polars may start is decided once the files are known, before it starts."""
    assert _loaded("import pcapdiag.capture.vantages") == {"numpy"}


def _strangers(paths: list[str]) -> set[str]:
    tops = {path.split("/")[0] for path in paths}
    return {top for top in tops if not top.startswith(".")} - TOP_LEVEL


@pytest.mark.needs("git")
def test_the_root_holds_only_what_it_should() -> None:
    """No file or folder lies in the root of the repository that the design does not name."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git work tree")
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert _strangers(listing.stdout.split("\0")[:-1]) == set()
    assert _strangers(["pcapdiag/cli/__init__.py", "notes.txt", ".ci/run"]) == {"notes.txt"}
