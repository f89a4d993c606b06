"""The checks of a Python loader that cost no import of its packages: ``infermill_engine.py --check``.

Reads ``{"file" | "module", "base_dir", "loader"}`` from stdin, writes ``{"version", "faults": [{"key", "problem"}]}``.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from typing import Any, Mapping

from .errors import ConfigFaults, fault
from .importing import class_missing, missing_package, set_path


def main() -> None:
    place = json.load(sys.stdin)
    faults: list[dict[str, str]] = []
    try:
        check_file(place)
    except ConfigFaults as found:
        faults = found.faults
    print(json.dumps({"version": ".".join(map(str, sys.version_info[:3])), "faults": faults}))


def check_file(place: Mapping[str, Any]) -> None:
    """
    :raises ConfigFaults: where the file has a syntax error, lacks a package, or lacks the class
    """
    name = set_path(place)
    file = place.get("file") or _find_module(name, place["base_dir"])
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read(), file)
    except (SyntaxError, ValueError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise fault("model_loader_file", f"{file} can't be imported: {type(error).__name__}: {error}{line}") from error
    except OSError as error:
        raise fault("model_loader_file", f"{file} can't be read: {error.strerror}") from error
    for node in tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not isinstance(node, _HARMLESS) and not is_text:
            # It may change the path, or install something.
            break
        for package in _imported(node):
            if not _is_installed(package):
                raise fault(
                    "model_loader_file", missing_package(package, f"{file} ({os.path.basename(file)}, line {node.lineno})")
                )
    # Where names are made in other ways, the import itself will tell.
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body):
        return
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if place["loader"] not in {*classes, *_bound_names(tree)}:
        raise fault("loader", class_missing(place["loader"], place.get("file") or name, classes))


#: Statements after which an import finds what it found before.
_HARMLESS = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _find_module(name: str, base_dir: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise fault("model_loader_file", f'must be a module that Python finds from {base_dir}, there is no "{name}"')
    return spec.origin


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.split(".")[0]]
    return []


def _is_installed(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return True


def _bound_names(tree: ast.Module) -> set[str]:
    """Names at the top level that may be a class, by an import, an assignment or within an if or a try."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.If, ast.Try)):
            names |= {inner.name for inner in ast.walk(node) if isinstance(inner, ast.ClassDef)}
    return names
