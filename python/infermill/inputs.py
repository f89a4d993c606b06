"""Reads the inputs that a chunk names by reference: files of the input store, below a bulk root, or by their path."""

from __future__ import annotations

import os
import stat
from typing import Any, Mapping

from .errors import BadInputError


class InputReader:
    def __init__(self, folder: str, roots: Mapping[str, str]) -> None:
        self._folder = folder
        self._roots = roots

    def read(self, ref: Mapping[str, Any]) -> bytes:
        """The bytes of a file.

        :raises BadInputError: where it can't be read, so that it fails its own prediction only
        """
        name = self._name(ref)
        try:
            if "root" in ref:
                return self._read_below_root(ref, name)
            return _read_whole(_open(self._path(ref)), name)
        except OSError as error:
            if "file" in ref:
                raise BadInputError(
                    "the stored picture is gone: it outlived input_ttl_seconds, or api and worker don't share data_dir "
                    "(then set inputs to redis)"
                ) from error
            is_missing = isinstance(error, FileNotFoundError)
            raise BadInputError(f"there is no file {name}" if is_missing else f"{name} can't be read") from error

    def _path(self, ref: Mapping[str, Any]) -> str:
        if "file" in ref:
            return os.path.join(self._folder, ref["file"])
        return str(ref["path"])

    def _read_below_root(self, ref: Mapping[str, Any], name: str) -> bytes:
        """Opens first and checks what was opened: a link that is made or changed in between leads nowhere."""
        root = self._roots.get(ref["root"])
        if root is None:
            raise BadInputError(f'there is no bulk root "{ref["root"]}"')
        path = os.path.join(root, ref["path"])
        descriptor = _open(path)
        try:
            real = os.path.realpath(path)
            opened, named = os.fstat(descriptor), os.stat(real)
            is_below = real.startswith(os.path.realpath(root).rstrip(os.sep) + os.sep)
            if not is_below or (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino):
                raise BadInputError(f"{name} leads out of its bulk root")
        except BaseException:
            os.close(descriptor)
            raise
        return _read_whole(descriptor, name)

    @staticmethod
    def _name(ref: Mapping[str, Any]) -> str:
        if "file" in ref:
            return str(ref["file"])
        return f"{ref['root']}/{ref['path']}" if "root" in ref else str(ref["path"])


def _open(path: str) -> int:
    # A pipe that nobody writes to would hold up a plain open for ever.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _read_whole(descriptor: int, name: str) -> bytes:
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadInputError(f"{name} is no regular file")
        data = os.read(descriptor, found.st_size)
        while len(data) < found.st_size:
            more = os.read(descriptor, found.st_size - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)
