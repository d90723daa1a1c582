"""What docstrings say about fields, parents' fields included."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.fields import args_section, field_docs
from mibench.registry import get_defense


@dataclass
class Parent:
    """A parent.

    Args:
        low, high: ends of the range,
            in pixels.
        kept: said here.
    """

    low: int = 0
    high: int = 1
    kept: int = 2


@dataclass
class Child(Parent):
    """A child.

    Args:
        own (int): "ce", the paper's; or "mse": another.
        kept: said anew.

    Raises:
        ValueError: never.
    """

    own: str = "ce"
    silent: int = 0


def test_fields_of_parents_are_found_and_may_be_said_anew() -> None:
    assert field_docs(Child) == {
        "low": "ends of the range, in pixels.",
        "high": "ends of the range, in pixels.",
        "kept": "said anew.",
        "own": '"ce", the paper\'s; or "mse": another.',
    }


def test_a_text_without_the_section_says_nothing() -> None:
    assert args_section("Title.\n\n    low: not here.") == {}


def test_a_real_plugin_finds_the_words_of_its_private_parents() -> None:
    docs = field_docs(get_defense("gan_d"))
    assert docs["finetune_steps"].startswith("Adam's steps")
    assert docs["focal"].startswith('"focal_literal"')
