"""The settings of metrics in a suite, `[metric.NAME]`, and the files that a user gives to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mibench.errors import SuiteError
from mibench.metric import Metric


def metric_tables(raw: Mapping[str, Any], names: tuple[str, ...], *, where: str) -> dict[str, Any]:
    """The tables `[metric.NAME]` of a parsed suite by name.

    Args:
        raw: the parsed file.
        names: the metrics of the suite.
        where: begins every message.

    Raises:
        SuiteError: `metric` is no table, or sets a metric that the suite does not name.
    """
    tables = raw.get("metric", {})
    if not isinstance(tables, Mapping):
        raise SuiteError(f"{where}, metric: must be a table, got {tables!r}. Write [metric.NAME].")
    for name in tables:
        if name not in names:
            raise SuiteError(
                f"{where}, metric.{name}: is not among the metrics ({', '.join(names)}). Name it there."
            )
    return dict(tables)


def beside(metric: Metric, folder: Path) -> Metric:
    """The metric with the paths of its files taken relative to a folder, the suite's."""
    paths = {name: str(folder / Path(path).expanduser()) for name, path in metric.paths().items() if path}
    return dataclasses.replace(metric, **paths) if paths else metric
