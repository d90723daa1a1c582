"""`mibench board build` and `mibench board serve`: the static site of the boards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import io
    from http.server import SimpleHTTPRequestHandler
    from typing import BinaryIO

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[BOARD]...", help="Boards of the site; all by default.")
]
Boards = Annotated[Path, typer.Option("--boards", help="The folder of boards.")]
SiteOut = Annotated[Path, typer.Option("--out", help="The site's folder; it is replaced as a whole.")]
Results = Annotated[
    list[Path] | None,
    typer.Option("--results", help="Folders of results with pictures of cells; results/ by default."),
]
Port = Annotated[
    int, typer.Option(help="To listen on, at this machine alone; 0 takes a free one.", min=0, max=65535)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app of boards."""
    app.command()(build)
    app.command()(serve)


def build(
    names: Names = None,
    *,
    boards: Boards = Path("leaderboards"),
    out: SiteOut = Path("site"),
    results: Results = None,
) -> None:
    """Write the site of the boards, from their records and histories alone.

    Nothing is run, and no plugin is loaded. The pages open from disk and ask no other machine for anything.

    Raises:
        BoardError: there is no such board, one cannot be used, or OUT holds something else than a site.
    """
    from mibench.boards.board import find_board, list_boards
    from mibench.boards.site.build import build_site

    found = [find_board(boards, name) for name in dict.fromkeys(names)] if names else list_boards(boards)
    places = results if results is not None else [Path("results")]
    pages = build_site(found, out, results=places)
    typer.echo(
        f"{len(pages)} pages of {len(found)} {'board' if len(found) == 1 else 'boards'}: open {pages[0]}"
    )


def serve(*, out: SiteOut = Path("site"), port: Port = 8000) -> None:
    """Serve a built site to browsers of this machine until Ctrl-C.

    Raises:
        BoardError: OUT is no site, or the port is taken.
    """
    from functools import partial
    from http.server import ThreadingHTTPServer

    from mibench.boards.site.folder import MARK
    from mibench.errors import BoardError

    if not (out / MARK).is_file():
        raise BoardError(f"site {out}: is none. Run `mibench board build --out {out}` first.")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(handler(), directory=str(out)))
    except OSError as error:
        raise BoardError(f"port {port}: cannot be used ({error.strerror}). Give another --port.") from error
    with server:
        typer.echo(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)")
        server.serve_forever()


def handler() -> type[SimpleHTTPRequestHandler]:
    """Requests for files of the site; a folder without a page is not listed, nor is a link followed."""
    from http.server import SimpleHTTPRequestHandler

    class Pages(SimpleHTTPRequestHandler):
        def list_directory(self, path: object) -> None:
            self.send_error(404)

        def send_head(self) -> io.BytesIO | BinaryIO | None:
            path = Path(self.translate_path(self.path))
            root = Path(self.directory).resolve()
            if not path.resolve().is_relative_to(root):
                self.send_error(404)
                return None
            return super().send_head()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: an address may hold what a terminal obeys."""

    return Pages
