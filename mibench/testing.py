"""The contract checks: what `mibench check` asks of a plugin, and the tests of every built-in one.

Public, so that a package with plugins of its own tests them alike::

    @pytest.mark.parametrize("check", checks_for(MyAttack), ids=lambda check: check.name)
    def test_contract(check):
        verdict = check.run()
        assert verdict.status == "ok", verdict.text

The checks run on a CPU in a toy world of procedural faces; a plugin says by its `toy` settings how it gets
through them in a second or two.
"""

from __future__ import annotations

from typing import Any

from mibench.attack import Attack
from mibench.contract.attack_checks import attack_checks
from mibench.contract.check import Check, Verdict
from mibench.contract.defense_checks import defense_checks
from mibench.contract.metric_checks import metric_checks
from mibench.contract.plugin_checks import plugin_checks
from mibench.defense import Defense
from mibench.errors import PluginError
from mibench.metric import Metric
from mibench.plugin import Plugin

__all__ = ["Check", "Verdict", "checks_for"]


def checks_for(plugin: type[Plugin]) -> list[Check]:
    """All checks of an attack, defense or metric; nothing runs before `Check.run` is called.

    Raises:
        PluginError: the class is of no family, or its defaults or `toy` settings do not make a plugin.
    """
    own: Any = None
    try:
        if issubclass(plugin, Attack):
            own = attack_checks(plugin)
        elif issubclass(plugin, Defense):
            own = defense_checks(plugin)
        elif issubclass(plugin, Metric):
            own = metric_checks(plugin)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"plugin '{plugin.name}': cannot be made from its defaults and `toy` ({error}). Mend them."
        ) from error
    if own is None:
        raise PluginError(f"class {plugin.__name__}: is no attack, defense or metric. Derive it from one.")
    return [*plugin_checks(plugin), *own]
