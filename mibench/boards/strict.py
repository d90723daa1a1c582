"""JSON from anybody, read strictly: of bounded size and depth, without doubled keys, NaN or infinities."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict

from mibench.building import build_dataclass
from mibench.errors import BoardError
from mibench.key import canonical

MOST_BYTES = 2**20  # of a file that a person wrote or a tool wrote for a person: real ones have kilobytes
MOST_DEPTH = 32
FORBID = ConfigDict(extra="forbid")
"""For `__pydantic_config__` of what is read: a field that is not there is an error, and not passed over."""
_SHOWN = 60  # characters of a value in a message

T = TypeVar("T")


def parse_json(text: bytes | str, *, where: str, most_bytes: int = MOST_BYTES) -> Any:  # noqa: ANN401 - it is JSON
    """The value of a JSON text.

    Args:
        text: UTF-8.
        where: what messages begin with.
        most_bytes: of a text that is looked at.

    Raises:
        BoardError: it is too large or too deep, no JSON, or holds a doubled key, NaN or an infinite number.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > most_bytes:
        raise BoardError(f"{where}: has {len(raw):,} bytes; at most {most_bytes:,} are read. Shorten it.")
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=lambda pairs: _once(pairs, where),
            parse_constant=lambda word: _refuse_number(word, where),
            parse_float=lambda word: _finite(word, where),
            parse_int=lambda word: _whole(word, where),
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BoardError(f"{where}: is no JSON ({why:.200}). Write it anew.") from error
    if _depth(found) > MOST_DEPTH:
        raise BoardError(f"{where}: is nested more than {MOST_DEPTH} deep. Write it flatter.")
    return found


def read_json(file: Path, *, where: str = "", most_bytes: int = MOST_BYTES) -> Any:  # noqa: ANN401 - it is JSON
    """The value of a JSON file; see `parse_json`. A link is refused: it may lead anywhere.

    Raises:
        BoardError: as `parse_json`, or the file cannot be read.
    """
    name = where or str(file)
    try:
        if file.is_symlink():
            raise BoardError(f"{name}: is a link. Put the file itself there.")
        if (size := file.stat().st_size) > most_bytes:
            raise BoardError(f"{name}: has {size:,} bytes; at most {most_bytes:,} are read. Shorten it.")
        return parse_json(file.read_bytes(), where=name, most_bytes=most_bytes)
    except OSError as error:
        raise BoardError(f"{name}: cannot be read ({error.strerror}). Check its path.") from error


def build(kind: type[T], value: object, *, where: str) -> T:
    """A frozen dataclass from a JSON or TOML table.

    Raises:
        BoardError: it is no table, or a field is unknown, missing or wrong.
    """
    if not isinstance(value, Mapping):
        raise BoardError(f"{where}: must be a table, got {value!r:.{_SHOWN}}. Write it anew.")
    try:
        return build_dataclass(kind, dict(value), where=where)
    except (ValueError, TypeError) as error:
        said = f"{error!s:.400}"
        raise BoardError(said if said.startswith(where) else f"{where}: {said}") from error


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BoardError(f"{where}: the key {name!r:.{_SHOWN}} stands there twice. Keep one.")
        found[name] = value
    return found


def _refuse_number(word: str, where: str) -> float:
    raise BoardError(f"{where}: holds {word:.{_SHOWN}}, which is no number of JSON. Write a finite one.")


def _finite(word: str, where: str) -> float:
    value = float(word)
    return value if math.isfinite(value) else _refuse_number(word, where)


def _whole(word: str, where: str) -> int:
    # 18 digits fit any integer type, and larger ones take Python quadratic time
    return int(word) if len(word.lstrip("-")) <= 18 else int(_refuse_number(word, where))


def _depth(value: Any) -> int:  # noqa: ANN401 - it is JSON
    deepest, layer = 0, [value]
    while layer:
        deepest += 1
        layer = [
            part
            for one in layer
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return deepest
