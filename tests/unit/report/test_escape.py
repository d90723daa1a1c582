"""Labels and messages come from anyone: nothing in them may act where they are printed."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench.report.escape import csv_text, latex, markdown, plain, slug, slugs


@given(st.text())
def test_plain_text_has_neither_control_characters_nor_lines(text: str) -> None:
    safe = plain(text)
    assert not {unicodedata.category(char) for char in safe} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert plain(safe) == safe
    safe.encode()


def test_plain_text_keeps_what_people_write_and_shows_what_it_drops() -> None:
    assert plain(" GAN-D  (λ = 0.5)\n") == "GAN-D (λ = 0.5)"
    assert plain("a\x1b[31mb\u202ec") == "a\ufffd[31mb\ufffdc"
    assert plain("abcdefgh", 4) == "abc…"


@pytest.mark.parametrize(
    "text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r\n=1", "\N{FULLWIDTH EQUALS SIGN}1"]
)
def test_a_spreadsheet_meets_no_formula(text: str) -> None:
    assert csv_text(text).startswith("'")


@given(st.text())
def test_csv_text_never_starts_as_a_formula(text: str) -> None:
    assert not csv_text(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text())
def test_latex_text_is_ascii_with_balanced_braces(text: str) -> None:
    out = latex(text)
    assert out.isascii()
    bare = out.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"(?<!\\)[%#&_]", out)


def test_latex_names_what_it_cannot_print() -> None:
    assert latex(r"50 % of $x_1$ \input{a}") == r"50 \% of \$x\_1\$ \textbackslash{}input\{a\}"
    assert latex("é中") == "e{[}U+4E2D{]}"


def test_markdown_text_is_no_markup() -> None:
    assert markdown("a|b <img> *x* @me [l](u)") == r"a\|b &lt;img&gt; \*x\* &#64;me \[l\](u)"


@given(st.text())
def test_a_slug_is_a_harmless_file_name(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}", slug(text))


def test_slugs_of_different_texts_differ() -> None:
    assert slugs(["../GMI", "gmi", "gmi", "!"]) == {"../GMI": "gmi", "gmi": "gmi-2", "!": "x"}
