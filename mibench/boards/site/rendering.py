"""The templates of the site, the policy that binds its pages, and the files that they share."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import jinja2

_PACKAGE = "mibench.boards.site"
ASSETS = "assets"
OWN = ("escape.js", "table.js", "charts.js", "download.js")


@cache
def environment() -> jinja2.Environment:
    """The templates of the site, and the parts that the report's pages share; all values are escaped.

    `tojson` writes <, >, & and ' as escapes of JSON, so that no text can end its script element, and refuses
    NaN, which is no JSON.
    """
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(_PACKAGE, "templates"), jinja2.PackageLoader("mibench.report", "templates")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return made


def render(name: str, /, *, root: str, **values: object) -> str:
    """The template `name` with these values, escaped.

    Args:
        name: of the template.
        root: from the page to the site's folder: empty, or `../` for each folder between.
        values: of the template.
    """
    return environment().get_template(name).render(root=root, policy=policy(), asset=address, **values)


@cache
def vendored() -> list[dict[str, Any]]:
    """What `vendored.json` says of the libraries of others, in the order in which pages load them."""
    found: list[dict[str, Any]] = json.loads((_static() / "vendor" / "vendored.json").read_text("utf-8"))
    return found


@cache
def policy() -> str:
    """The content security policy of every page.

    Scripts are files beside the pages, never text in them. `file:` stands beside 'self', which some browsers
    do not match where a page is opened from disk; a page from a server cannot load such an address anyway.
    """
    styles = " ".join(f"'{one}'" for library in vendored() for one in library.get("styles", ()))
    return (
        "default-src 'none'; script-src 'self' file:; "
        f"style-src 'self' file: {styles}; img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )


@cache
def assets() -> dict[str, bytes]:
    """The files that pages share, by name, licenses of the libraries among them."""
    static = _static()
    files = {name: (static / name).read_bytes() for name in OWN}
    for library in vendored():
        for name in (library["file"], library["license_file"]):
            files[name] = (static / "vendor" / name).read_bytes()
    # the look of the report's pages, then what boards have beside it
    report = (resources.files("mibench.report") / "templates" / "style.css").read_bytes()
    return files | {"site.css": report + b"\n" + (static / "site.css").read_bytes()}


@cache
def address(name: str) -> str:
    """Where pages load a shared file from, below the site's folder: a changed file is no longer cached."""
    return f"{ASSETS}/{name}?{hashlib.sha256(assets()[name]).hexdigest()[:12]}"


def _static() -> Traversable:
    return resources.files(_PACKAGE) / "static"
