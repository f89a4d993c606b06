"""The frames between an engine and its worker, as docs/engine-protocol.md has them."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from typing import Any, Optional, Sequence, Tuple, Union

PROTOCOL = 1
#: The pipe's file descriptor.
PIPE = 3
MAGIC = b"IFM1"
_PREFIX = struct.Struct("<4sII")

MAX_HEADER_BYTES = 256 * 2**20
MAX_BODY_BYTES = 2**30
MAX_COPIED_BYTES = 4 * 2**20

Bytes = Union[bytes, bytearray, memoryview]


#: The worker writes whole numbers that JavaScript can't hold as strings, U+FDD0 and the digits. Python can hold them.
_MARK = "\ufdd0".encode("utf-8")
_MARKED_NUMBER = re.compile(b'"' + _MARK + rb'(-?\d+)"')


def _restore_numbers(header: bytes) -> bytes:
    return _MARKED_NUMBER.sub(rb"\1", header) if _MARK in header else header


class Channel:
    """The engine's end of the pipe. Sending is safe from any thread."""

    def __init__(self, descriptor: int = PIPE) -> None:
        # What the loader starts must not hold the pipe open.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._reader = self._socket.makefile("rb", buffering=256 * 1024)
        self._lock = threading.Lock()
        self._is_forked = False
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def receive(self) -> Optional[Tuple[dict[str, Any], memoryview]]:
        """The next frame; None when the worker has gone.

        :raises ValueError: where what came is no frame
        """
        prefix = self._reader.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            return None
        magic, header_bytes, body_bytes = _PREFIX.unpack(prefix)
        if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
            raise ValueError(f"{prefix!r} begins no frame")
        header = self._reader.read(header_bytes)
        body = bytearray(body_bytes)
        read = self._reader.readinto(body) if body_bytes else 0  # type: ignore[attr-defined]
        if len(header) < header_bytes or read < body_bytes:
            return None
        return json.loads(_restore_numbers(header)), memoryview(body)

    def send(self, header: bytes, body: Sequence[Bytes] = ()) -> None:
        """Sends one frame. When the worker has gone, the process ends."""
        if self._is_forked:
            # A child that the loader forked ran back into the engine.
            os._exit(0)
        body_bytes = sum(map(len, body))
        prefix = _PREFIX.pack(MAGIC, len(header), body_bytes)
        with self._lock:
            try:
                if body_bytes <= MAX_COPIED_BYTES:
                    # A copy costs less than a call to the system for each part.
                    self._socket.sendall(b"".join((prefix, header, *body)))
                else:
                    self._socket.sendall(prefix + header)
                    for part in body:
                        self._socket.sendall(part)
            except OSError:
                os._exit(0)

    def send_json(self, header: dict[str, Any]) -> None:
        self.send(json.dumps(header).encode("utf-8"))

    def _leave_to_parent(self) -> None:
        self._is_forked = True
        self._lock = threading.Lock()
        try:
            os.close(self._socket.detach())
        except OSError:
            pass
