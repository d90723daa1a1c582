"""Frozen dataclasses from JSON or TOML values, strictly typed, with one sentence for what is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import json
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

T = TypeVar("T")


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """What validates a dataclass; making it takes as long as a hundred validations."""
    return TypeAdapter(kind)


def build_dataclass(kind: type[T], params: dict[str, Any], *, where: str) -> T:
    """An instance of the dataclass `kind` from JSON or TOML values, strictly typed.

    Nested dataclasses take tables, tuples take lists, floats take integers; nothing else is converted.

    Raises:
        ValueError: an unknown field, a missing one or a value of the wrong type or range, with `where`.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # mypy takes no class for hashable
        return adapter.validate_json(json.dumps(params), strict=True)
    except ValidationError as error:
        raise ValueError(_sentence(kind, error.errors()[0], where)) from None


def _sentence(kind: type, error: ErrorDetails, where: str) -> str:
    """One sentence for the first thing that pydantic found wrong."""
    tables = _untagged(kind, [str(part) for part in error["loc"]])
    path = ".".join(tables)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        *tables, field_name = tables
        names = _field_names(kind, tables, [str(part) for part in error["loc"]])
        close = difflib.get_close_matches(field_name, names, n=1)
        hint = f" Did you mean '{'.'.join([*tables, close[0]])}'?" if close else ""
        return f"{where}: no field '{path}'.{hint} Its fields: {', '.join(names) or 'none'}."
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] in {"missing", "missing_argument"}:
        return f"{where}: field '{path}' is missing. Give it a value."
    if error["type"] == "dataclass_type":
        words = "".join(f' or "{word}"' for word in _words(kind, tables))
        return f"{where}: '{path}' must be a table{words}, got {error['input']!r}."
    return f"{where}: '{path}' is wrong ({error['msg'].lower()}), got {error['input']!r}."


def _untagged(kind: type, parts: list[str]) -> list[str]:
    """Names of fields alone: pydantic puts the class that it tried between those of a union."""
    names: list[str] = []
    for part in parts:
        before = _hint(kind, names)
        if not any(one.__name__ == part for one in get_args(before) if isinstance(one, type)):
            names.append(part)
    return names


def _hint(kind: type, path: list[str]) -> Any:  # noqa: ANN401 - a type hint may be anything
    """The type hint of the nested field that the names lead to; None where they lead nowhere."""
    hint: Any = kind
    for name in path:
        kinds = [
            one for one in (hint, *get_args(hint)) if isinstance(one, type) and dataclasses.is_dataclass(one)
        ]
        hint = get_type_hints(kinds[0]).get(name) if kinds else None
    return hint


def _words(kind: type, path: list[str]) -> list[str]:
    """Words that a field takes beside a table."""
    options = (get_args(one) for one in get_args(_hint(kind, path)) if get_origin(one) is Literal)
    return [str(word) for option in options for word in option]


def _field_names(kind: type, tables: list[str], parts: list[str]) -> list[str]:
    """Names of the fields of the nested dataclass that the field names `tables` lead to, from `kind`.

    Of a union it is the class that pydantic tried, whose name stands in `parts`, or the first one.
    """
    hint = _hint(kind, tables)
    found = [
        one for one in (hint, *get_args(hint)) if isinstance(one, type) and dataclasses.is_dataclass(one)
    ]
    found.sort(key=lambda one: one.__name__ not in parts)
    return [field.name for field in dataclasses.fields(found[0])] if found else []
