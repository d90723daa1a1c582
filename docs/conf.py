"""How Sphinx builds these pages: `make docs`. The Markdown stays plain, so that it reads on GitHub as well.

Two things are done to a page before it is parsed. A link to a file outside of docs/ becomes words and a path,
and a page that lists others gets a table of contents made of its list, so that no list is kept twice.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_META = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "mibench"
author = "The mibench authors"
project_copyright = author
release = version = _META["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
smartquotes = False  # an option keeps its two hyphens
html_math_renderer = "mathml"
exclude_patterns = ["_build", "recipes", "figures"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# a transcript is no session of one fixed language, and its output is not to be colored as code
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "mibench"
# a transcript of 100 columns fits the page
_CODE = {"code-font-size": "var(--font-size--small--3)"}
html_theme_options = {"light_css_variables": _CODE, "dark_css_variables": _CODE, "navigation_with_keys": True}
html_show_sphinx = False
html_copy_source = False

# references of types lead to other projects, whose inventories are not at hand where pages are built
nitpick_ignore_regex = [("py:class", ".*"), ("py:obj", ".*")]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s:]+)\)")
_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
_CONTENTS = "\n\n```{{toctree}}\n:hidden:\n{options}\n{pages}\n```\n"
_FOLDERS = {"attacks/README", "defenses/README", "adr/README"}


def outward(text: str, page: Path) -> str:
    """The text of a page with links to files outside of docs/ as words alone, with the path beside them.

    Args:
        text: Markdown.
        page: the file it is of, below docs/.
    """

    def told(found: re.Match[str]) -> str:
        target = (page.parent / found[2].split("#")[0]).resolve()
        if not found[2].startswith("#") and not _is_page(target):
            path = target.relative_to(ROOT).as_posix()
            if path in found[1]:
                return found[1]
            is_inside = text[: found.start()].endswith("(")  # no brackets in brackets
            return f"{found[1]}, `{path}`" if is_inside else f"{found[1]} (`{path}`)"
        return found[0]

    return _LINK.sub(told, text)


def contents(text: str, name: str) -> str:
    """Hidden tables of contents for a page that lists others; empty for one that does not.

    Args:
        text: Markdown, before links are changed.
        name: of the page, without its suffix, relative to docs/.
    """
    if name in _FOLDERS:
        return _CONTENTS.format(options=":glob:\n", pages="[a-z0-9]*")
    if name != "index":
        return ""
    parts = []
    for title, body in _SECTION.findall(text):
        pages = [link.removesuffix(".md") for _, link in _LINK.findall(body) if link.endswith(".md")]
        parts.append(_CONTENTS.format(options=f":caption: {title}\n", pages="\n".join(pages)))
    return "".join(parts)


def _is_page(target: Path) -> bool:
    """Whether the site has a page of this file; a picture and a recipe are copied with the pages."""
    return target.is_file() and target.is_relative_to(HERE)


def _weave(_app: Sphinx, name: str, source: list[str]) -> None:
    (text,) = source
    source[0] = outward(text, HERE / f"{name}.md") + contents(text, name)


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula in a line, as MathML: pages open from disk, and ask no other machine for a script."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula on a line of its own."""
    self.body.append(f'<div class="math-block">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Hook in; builds may read pages in parallel."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.connect("source-read", _weave)
    return {"parallel_read_safe": True}
