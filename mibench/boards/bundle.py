"""What a submission is: a zip file with records, what they were computed from, and the plugin's source.

Nothing in it is believed: names and sizes (`mibench.boards.unpacking`), hashes, JSON and every field are
checked when it is read, tensors when they are asked for (`mibench.boards.tensors`). Its plugin is bytes here.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from mibench.boards.entry import NAME, Kind
from mibench.boards.entry import SCHEMA as ENTRY_SCHEMA
from mibench.boards.entry import Entry as BoardEntry
from mibench.boards.strict import build, parse_json
from mibench.boards.submitted import LABEL, check_text, read_submitted
from mibench.boards.unpacking import MOST_FILE, MOST_MEMBERS, Archive, open_archive
from mibench.errors import BoardError
from mibench.key import canonical
from mibench.record import Record

SCHEMA = 1
MANIFEST, PLUGIN, SUITE, RECORDS = "bundle.json", "plugin.py", "suite.toml", "records.jsonl"
_HASH = re.compile(r"[0-9a-f]{64}")
_CELL = re.compile(r"[0-9a-f]{12}")
_FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of the bundle: its SHA-256 in hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        if not _HASH.fullmatch(self.sha256):
            raise ValueError(f"sha256 {self.sha256!r:.60} is no SHA-256 of 64 lowercase hexadecimal digits.")
        if not 0 <= self.bytes <= MOST_FILE:
            raise ValueError(f"bytes must lie in [0, {MOST_FILE}], got {self.bytes}.")


@dataclass(frozen=True, kw_only=True)
class SuiteLabel:
    """The suite of the records: its name, and the SHA-256 of what decides its numbers beside the plugins."""

    name: str
    digest: str
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", self.name):
            raise ValueError(f"suite.name {self.name!r:.60} is no name of a suite.")
        if not _HASH.fullmatch(self.digest):
            raise ValueError(f"suite.digest {self.digest!r:.60} is no SHA-256.")


@dataclass(frozen=True, kw_only=True)
class CellFiles:
    """What a measured cell was computed from.

    Args:
        goal: of its attack.
        answers: for each model the key of its answers, a file of `answers/`.
    """

    goal: str
    answers: tuple[str, ...]
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        if self.goal not in {"class", "instance"}:
            raise ValueError(f"goal must be 'class' or 'instance', got {self.goal!r:.60}.")
        for key in self.answers:
            if not _HASH.fullmatch(key):
                raise ValueError(f"answers holds {key!r:.60}, which is no key.")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`bundle.json`: canonical JSON, as `mibench.key.canonical` writes it.

    Args:
        schema: of the file.
        kind: what the plugin is.
        name: of the entry that a board would make of it.
        label: of the plugin in the records.
        plugin: the plugin's name.
        params: fields that are not the plugin's defaults.
        suite: which one the records are of.
        mibench: version that packed it.
        title: one line for pages.
        paper: citation or identifier.
        authors: who sends it.
        rulers: by role SHA-256 of the tensors that judged (`judge`, `audit`, `embedder`): where those of the
            verifier are equal, its numbers must be equal bit for bit.
        cells: by name what measured cells were computed from; empty where images may not be shown.
        files: every other file of the bundle.
    """

    schema: int
    kind: Kind
    name: str
    label: str
    plugin: str
    suite: SuiteLabel
    mibench: str
    files: dict[str, Member]
    params: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    paper: str = ""
    authors: str = ""
    rulers: dict[str, str] = field(default_factory=dict)
    cells: dict[str, CellFiles] = field(default_factory=dict)
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, got {self.schema}. Update mibench.")
        for word in ("name", "plugin"):
            if not NAME.fullmatch(getattr(self, word)):
                raise ValueError(
                    f"{word} {getattr(self, word)!r:.60} must be lowercase letters, digits and _, at most 40."
                )
        if not LABEL.fullmatch(self.label):
            raise ValueError(f"label {self.label!r:.60} is no label of a row.")
        if len(self.files) > MOST_MEMBERS:
            raise ValueError(f"files names {len(self.files):,}; {MOST_MEMBERS:,} may be.")
        for cell in self.cells:
            if not _CELL.fullmatch(cell):
                raise ValueError(f"cells holds {cell!r:.60}, which is no name of a cell.")
        self.entry()  # which says what is wrong with title, paper and authors

    def to_bytes(self) -> bytes:
        """The file's content."""
        return f"{canonical(asdict(self))}\n".encode()

    def entry(self) -> BoardEntry:
        """What a board would write down of it, as nothing but reported.

        Raises:
            ValueError: a field is none that an entry may have.
        """
        source = self.files.get(PLUGIN)
        return BoardEntry(
            schema=ENTRY_SCHEMA,
            kind=self.kind,
            plugin=self.plugin,
            source="" if source is None else source.sha256,
            params=self.params,
            title=self.title,
            paper=self.paper,
            authors=self.authors,
        )


@dataclass(frozen=True)
class Bundle:
    """A submission whose structure, hashes and texts were found sound.

    Args:
        where: what messages begin with.
        manifest: of `bundle.json`.
        records: of all its cells, in table order.
        tables: `suite.toml`, parsed.
        archive: where reconstructions, answers and the plugin's source are read from.
    """

    where: str
    manifest: Manifest
    records: tuple[Record, ...]
    tables: Mapping[str, Any]
    archive: Archive

    def read(self, name: str) -> bytes:
        """The content of a member that has the hash of `bundle.json`.

        Raises:
            BoardError: it is missing, torn, or another one.
        """
        content = self.archive.read(name)
        said = self.manifest.files[name]
        if len(content) != said.bytes or hashlib.sha256(content).hexdigest() != said.sha256:
            raise BoardError(
                f"{self.where}: '{name}' is not the file that {MANIFEST} names: it was edited. Pack it again."
            )
        return content

    @property
    def source(self) -> bytes | None:
        """The plugin's source; None where the plugin is built in."""
        return self.read(PLUGIN) if PLUGIN in self.manifest.files else None


def images_of(cell: str) -> str:
    """The member that holds the reconstructions of a cell."""
    return f"reconstructions/{cell}.safetensors"


def answers_of(key: str) -> str:
    """The member that holds the answers of a model."""
    return f"answers/{key}.safetensors"


@contextmanager
def open_bundle(file: Path) -> Iterator[Bundle]:
    """A submission, once all but its tensors was checked; nothing of it is run, and nothing written.

    Raises:
        BoardError: it is no bundle, or anything in it is not as it must be.
    """
    with open_archive(file) as archive:
        manifest = _manifest(archive)
        _check_files(archive, manifest)
        bundle = Bundle(archive.where, manifest, (), {}, archive)
        records = read_submitted(bundle.read(RECORDS), f"{archive.where}, {RECORDS}")
        tables = _toml(bundle.read(SUITE), f"{archive.where}, {SUITE}")
        _check_source(bundle)
        bundle = Bundle(archive.where, manifest, records, tables, archive)
        _check_cells(bundle)
        yield bundle


def _manifest(archive: Archive) -> Manifest:
    where = f"{archive.where}, {MANIFEST}"
    raw = archive.read(MANIFEST)
    value = parse_json(raw, where=where)
    check_text(value, where)
    manifest = build(Manifest, value, where=where)
    if manifest.to_bytes() != raw:
        raise BoardError(f"{where}: is no canonical JSON. Let `mibench submit pack` write it.")
    return manifest


def _check_files(archive: Archive, manifest: Manifest) -> None:
    """BoardError unless `bundle.json` names exactly the other members, with their sizes."""
    where, there = archive.where, archive.members.keys() - {MANIFEST}
    for name in sorted(there - manifest.files.keys()):
        raise BoardError(f"{where}: '{name}' is not named in {MANIFEST}. Pack it again.")
    needed = {RECORDS, SUITE}
    for cell, own in manifest.cells.items():
        needed |= {images_of(cell), *map(answers_of, own.answers)}
    missing = sorted((needed | manifest.files.keys()) - there)
    if missing:
        raise BoardError(f"{where}: '{missing[0]:.90}' is missing. Pack it again.")
    spare = sorted(manifest.files.keys() - needed - {PLUGIN})
    if spare:
        raise BoardError(f"{where}: '{spare[0]:.90}' belongs to no cell of the bundle. Pack it again.")


def _check_source(bundle: Bundle) -> None:
    """BoardError where the plugin's source is no text; it is not run."""
    source = bundle.source
    try:
        text = "" if source is None else source.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BoardError(
            f"{bundle.where}, {PLUGIN}: is no text ({error.reason}). Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise BoardError(f"{bundle.where}, {PLUGIN}: holds a zero byte. Save it as UTF-8.")


def _check_cells(bundle: Bundle) -> None:
    """BoardError unless the records are of the named suite, the named plugin and the named cells."""
    where, manifest = f"{bundle.where}, {RECORDS}", bundle.manifest
    measured = {record.cell for record in bundle.records if record.status == "ok"}
    strange = sorted(manifest.cells.keys() - measured)
    bare = sorted(measured - manifest.cells.keys())
    if manifest.cells and bare:
        raise BoardError(f"{where}: cell {bare[0]} has no images, and others have. Pack it again.")
    if strange:
        raise BoardError(
            f"{where}: has no measured cell '{strange[0]}', which {MANIFEST} names. Pack it again."
        )
    own = []
    for record in bundle.records:
        if record.suite != manifest.suite.name:
            raise BoardError(
                f"{where}: cell {record.cell} is of another suite than the bundle. Pack it again."
            )
        side = getattr(record, manifest.kind)
        if side["label"] == manifest.label:
            own.append(side["name"])
    if set(own) != {manifest.plugin}:
        raise BoardError(
            f"{where}: '{manifest.label}' is not {manifest.kind} '{manifest.plugin}' in every cell that has "
            "it, or no cell has it. Pack it again."
        )
    for record in bundle.records:
        files = manifest.cells.get(record.cell)
        if files is not None and len(files.answers) != len(record.keys["models"]):
            raise BoardError(
                f"{where}: cell {record.cell} has other models than {MANIFEST} says. Pack it again."
            )


def _toml(raw: bytes, where: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else f"{error!s:.120}"
        raise BoardError(f"{where}: is no TOML ({why}). Let `mibench submit pack` write it.") from error
    check_text(tables, where)
    return tables
