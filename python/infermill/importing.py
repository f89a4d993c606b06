"""Finds the loader class that a model's section names, and says well why there is none."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from types import ModuleType, TracebackType
from typing import Any, Mapping, Optional

from .errors import ConfigFaults, fault
from .imil import install_finder
from .options import did_you_mean

#: Where the name that is imported differs from the one that pip knows.
PIP_NAMES: Mapping[str, str] = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "clip": "git+https://github.com/openai/CLIP.git",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))


def set_path(place: Mapping[str, Any]) -> str:
    """Puts the loader's folder and the configuration's on the path; answers the name of the module to import."""
    install_finder()
    base_dir = place["base_dir"]
    file = place.get("file")
    if file is None:
        _add_path(base_dir)
        return str(place["module"])
    folder, name = os.path.split(file)
    parts = [os.path.splitext(name)[0]]
    # A file of a package is imported as such, so that its relative imports work.
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    if parts[-1] == "__init__":
        parts.pop()
    # The configuration's folder behind the file's own, for those who run IMIL from its root.
    _add_path(base_dir)
    _add_path(folder)
    return ".".join(parts)


def _add_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def load_class(place: Mapping[str, Any], class_name: str) -> type:
    """The class.

    :param place: ``file`` or ``module``, and ``base_dir``
    :raises ConfigFaults: where it can't be imported or isn't there
    """
    name = set_path(place)
    shown = place.get("file") or name
    module = _import(name, place, shown)
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise fault("loader", class_missing(class_name, shown, _class_names(module)))
    if not (hasattr(found, "predict_requests") or hasattr(found, "predict_request")):
        raise fault(
            "loader",
            f"must be a class with a method predict_request (or predict_requests), {class_name} of {shown} has neither",
        )
    return found


def class_missing(class_name: str, shown: str, names: list[str]) -> str:
    """The problem of a class that isn't there."""
    there = f"the file has {', '.join(names)}" if names else "the file has no class"
    return f'must be a class of {shown}, got "{class_name}"; {there}{did_you_mean(class_name, names)}'


def _class_names(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def _import(name: str, place: Mapping[str, Any], shown: str) -> ModuleType:
    try:
        file = place.get("file")
        if file is None or "." in name:
            return importlib.import_module(name)
        # By its path, whatever else is called like it: queue.py is a fine name for a loader's file.
        is_taken = name in sys.modules or name in getattr(sys, "stdlib_module_names", ())
        spec = importlib.util.spec_from_file_location(f"infermill_loader_{name}" if is_taken else name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        if error.name is None or error.name == name:
            raise fault("model_loader_file", f"must be a module that Python finds, {error}") from error
        raise fault("model_loader_file", missing_package(error.name, f"{shown}{_place_of(error)}")) from error
    except BaseException as error:
        raise fault("model_loader_file", f"{shown} can't be imported: {describe(error)}") from error


def missing_package(name: str, where: str) -> str:
    """The problem of a package that this interpreter lacks, with the command that installs it."""
    package = name.split(".")[0]
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f'{where} imports "{name}", which isn\'t installed for {sys.executable} (Python {version}): '
        f"run {sys.executable} -m pip install {PIP_NAMES.get(package, package)}, "
        "or let `python` name the interpreter or virtual environment that has it"
    )


def describe(error: BaseException) -> str:
    """An exception in a line: its kind, its text, and the line of the user's code that it came from."""
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({os.path.basename(error.filename)}, line {error.lineno})"
    return f"{type(error).__name__}{f': {text}' if text else ''}{_place_of(error)}"


def _place_of(error: BaseException) -> str:
    frames = user_frames(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    function = f" in {last.name}" if last.name != "<module>" else ""
    return f" ({os.path.basename(last.filename)}, line {last.lineno}{function})"


#: Folder whose files are the user's own; their lines are shown first.
USER_FOLDER: Optional[str] = None


def user_frames(trace: Optional[TracebackType]) -> list[traceback.FrameSummary]:
    """The frames of a traceback that are of the user's files; where none is, those that are not of this package."""
    frames = [
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith((OWN_FOLDER, "<frozen")) and frame.filename != __file__
    ]
    own = [frame for frame in frames if USER_FOLDER and frame.filename.startswith(USER_FOLDER + os.sep)]
    own = [frame for frame in own if f"{os.sep}site-packages{os.sep}" not in frame.filename]
    return own or frames


def format_traceback(error: BaseException) -> str:
    """The traceback of the user's files only, as the log shows it."""
    lines = ["Traceback (most recent call last):\n"]
    lines += traceback.format_list(user_frames(error.__traceback__))
    lines += traceback.format_exception_only(type(error), error)
    return "".join(lines).rstrip()


def set_user_folder(place: Mapping[str, Any]) -> None:
    """Says which folder is the user's."""
    global USER_FOLDER
    USER_FOLDER = os.path.dirname(place["file"]) if place.get("file") else place["base_dir"]


__all__ = ["ConfigFaults", "class_missing", "describe", "format_traceback", "load_class", "missing_package", "set_path"]
