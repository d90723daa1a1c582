"""Keys: what a result depends on, as one hash. Equal keys mean equal results, on any machine."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

Key = str
SCHEMA = 1  # grows when keys or artifacts change their meaning; every older artifact is then a miss


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII; 1.0 and 1 are the same number.

    Args:
        value: numbers, words, booleans, None, lists, tuples and dicts with string keys.

    Raises:
        ValueError: NaN, an infinity, or a key that is no string.
        TypeError: anything else that JSON cannot carry.

    >>> canonical({"b": (1.0, True), "a": None})
    '{"a":null,"b":[1,true]}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def make_key(
    stage: str,
    *,
    plugin: str,
    version: int,
    source: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Key],
    seed: int,
) -> Key:
    """SHA-256 over all that the result of a task depends on.

    Args:
        stage: a name of the stage table in docs/architecture.md.
        plugin: name of the plugin that does the work.
        version: of the plugin.
        source: digest of a plugin's source from outside the package; empty for a built-in plugin.
        params: with defaults written out; no path, time, device or number of workers.
        inputs: keys of the artifacts that the task reads, by role.
        seed: of the suite.
    """
    content = {
        "schema": SCHEMA,
        "stage": stage,
        "plugin": plugin,
        "version": version,
        "params": params,
        "inputs": inputs,
        "seed": seed,
        **({"source": source} if source else {}),
    }
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            raise ValueError(f"key: {wrong[0]!r} is no string. Name every value by a string.")
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    # 2**53: above it floats skip integers, so the two spellings are not surely one number
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
