"""Finds rule modules: the built-in ones, installed plug-ins, and those of --rules-dir."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pcapdiag.errors import RuleError
from pcapdiag.rule import Check, Needs, RuleInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from pcapdiag.result import Severity

ENTRY_POINTS = "pcapdiag.rules"
"""Group under which an installed package offers rule modules."""

_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


class Rule(NamedTuple):
    """A rule ready to be run."""

    id: str
    info: RuleInfo
    doc: str
    check: Check

    @property
    def title(self) -> str:
        """Return the fault in a few words."""
        return self.info.title

    @property
    def severity(self) -> Severity:
        """Return the usual severity."""
        return self.info.severity

    @property
    def needs(self) -> Needs:
        """Return what must be there before the rule is asked."""
        return self.info.needs

    @property
    def since(self) -> str:
        """Return the version that brought the rule."""
        return self.info.since


def rules(rules_dirs: Sequence[str] = ()) -> dict[str, Rule]:
    """Return all rules by id, in alphabetical order.

    Raises RuleError where a folder of `rules_dirs` cannot be read, a module of it cannot be
    imported or is no rule, or two modules have one id.
    """
    found: dict[str, Rule] = {}
    for module in _modules(rules_dirs):
        entry = _rule_of(module)
        if entry.id in found:
            raise RuleError(f"two rule modules have the id {entry.id}")
        found[entry.id] = entry
    return dict(sorted(found.items()))


def _modules(rules_dirs: Sequence[str]) -> Iterator[ModuleType]:
    package = importlib.import_module("pcapdiag.rules")
    for module in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"pcapdiag.rules.{module.name}")
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            yield point.load()
        except Exception as error:
            raise RuleError(f"the plug-in {point.value} cannot be loaded: {error}") from error
    for folder in rules_dirs:
        if not Path(folder).is_dir():
            raise RuleError(f"--rules-dir {folder}: no such directory")
        for path in sorted(Path(folder).glob("[!_]*.py")):
            yield _import_file(path)


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RuleError(f"{path}: not a Python module")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RuleError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _rule_of(module: ModuleType) -> Rule:
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    checks = [
        value
        for value in vars(module).values()
        if callable(value) and isinstance(getattr(value, "rule_info", None), RuleInfo)
    ]
    if not _ID.match(name) or len(checks) != 1:
        raise RuleError(
            f"{module.__file__}: a rule module has a lower-case name with underscores and exactly "
            f"one function decorated with @rule, found {len(checks)}"
        )
    return Rule(
        id=name,
        info=checks[0].rule_info,
        doc=inspect.cleandoc(module.__doc__ or ""),
        check=checks[0],
    )
