"""A file system of fsspec on the local disk that behaves as an object store, and that processes share."""

import os
import secrets
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mibench import remote_files

PROTOCOL = "shared"


class SharedFiles(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files appear whole, and are created exclusively where that is asked for."""

    protocol = (PROTOCOL,)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(LocalFileSystem._strip_protocol(str(path).removeprefix(f"{PROTOCOL}://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_options: Any) -> None:
        place = Path(self._strip_protocol(path))
        aside = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
        aside.write_bytes(value)
        try:
            if mode == "create":
                os.link(aside, place)
            else:
                aside.replace(place)
        finally:
            aside.unlink(missing_ok=True)


def register() -> None:
    """Let `shared:///folder` be a URL."""
    fsspec.register_implementation(PROTOCOL, SharedFiles, clobber=True)
    remote_files.EXCLUSIVE.add(PROTOCOL)
