"""Submissions that mean harm: each is refused with one clear sentence, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from mibench.boards.packing import zipped
from mibench.boards.verifying import How, verify
from mibench.cli import main
from mibench.registry import forget_files
from mibench.store import Store

from .submissions import Members, make_bundle, make_results, members_of, sealed, with_records

Make = Callable[[Members], bytes]
_OWNED = "import pathlib\npathlib.Path('owned.txt').write_text('owned')\n"
_LINK = stat.S_IFLNK | 0o777


class Boom:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, ("touch owned.txt",)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """The members of an honest submission."""
    folder = tmp_path_factory.mktemp("honest")
    make_bundle(make_results(folder), folder / "shield.zip", title="Shield")
    return members_of((folder / "shield.zip").read_bytes())


@pytest.fixture(scope="module")
def shelf(good: Members, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the data and judges of the suite, so that nothing is told but what is wrong."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "honest.zip").write_bytes(zipped(good))
    assert verify(folder / "honest.zip", How(store=Store(folder))).is_true
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory in a folder of its own."""
    place = tmp_path / "deep" / "here"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    yield place
    forget_files()


def raw_zip(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    """A zip file with exactly these members, whatever they are called."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return found.getvalue()


def with_member(name: str, content: bytes = b"x", **attributes: int) -> Make:
    """Adds a member of any name and kind to the honest ones, and says nothing of it in bundle.json."""

    def make(members: Members) -> bytes:
        info = zipfile.ZipInfo(name)
        for attribute, value in attributes.items():
            setattr(info, attribute, value)
        return raw_zip(*members.items(), (info, content))

    return make


def replaced(name: str, content: bytes) -> Make:
    """Puts another content in place of a member; the hashes of bundle.json fit."""
    return lambda members: sealed({**members, name: content})


def told(**fields: Any) -> Make:
    """Sets fields of bundle.json."""
    return lambda members: sealed(members, lambda manifest: manifest.update(fields))


def as_text(old: str, new: str, *, name: str = "bundle.json") -> Make:
    """Edits the text of a member; the hashes fit unless it is bundle.json, which is written as it is."""

    def make(members: Members) -> bytes:
        text = members[name].decode()
        assert old in text
        edited = {**members, name: text.replace(old, new, 1).encode()}
        return zipped(edited) if name == "bundle.json" else sealed(edited)

    return make


def in_records(change: Callable[[list[dict[str, Any]]], None]) -> Make:
    """Edits the records; the hashes fit."""
    return lambda members: sealed(with_records(members, change))


def first_of(members: Members, folder: str) -> str:
    return next(name for name in sorted(members) if name.startswith(f"{folder}/"))


def in_tensors(folder: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Make:
    """Edits the tensors of the first file of a folder; the hashes fit."""

    def make(members: Members) -> bytes:
        name = first_of(members, folder)
        tensors = load(members[name])
        change(tensors)
        return sealed({**members, name: save(tensors)})

    return make


def as_images(content: bytes) -> Make:
    """Puts any content in place of reconstructions; the hashes fit."""
    return lambda members: sealed({**members, first_of(members, "reconstructions"): content})


def bytes_after(signature: bytes, offset: int, value: bytes, content: bytes) -> bytes:
    """The bytes of a zip file with a field set in every header of a kind."""
    edited, at = bytearray(content), content.find(signature)
    while at >= 0:
        edited[at + offset : at + offset + len(value)] = value
        at = content.find(signature, at + 4)
    return bytes(edited)


def encrypted(members: Members) -> bytes:
    """All members say that they are encrypted."""
    content = zipped(members)
    return bytes_after(b"PK\x01\x02", 8, struct.pack("<H", 1), content)


def by_bzip2(members: Members) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return found.getvalue()


def overlapping(members: Members) -> bytes:
    """Every directory entry points at the first member's data."""
    return bytes_after(b"PK\x01\x02", 42, struct.pack("<L", 0), zipped(members))


def lying(members: Members) -> bytes:
    """Directory and headers say that plugin.py is longer than it is."""
    content = zipped(members)
    size = struct.pack("<L", len(members["plugin.py"]))
    more = struct.pack("<L", len(members["plugin.py"]) + 7)
    return content.replace(size, more)


def many(members: Members) -> bytes:
    return raw_zip(*members.items(), *((f"answers/{i:064x}.safetensors", b"") for i in range(4200)))


def unnamed(members: Members) -> bytes:
    return raw_zip(*members.items(), (f"answers/{'a' * 64}.safetensors", b"x"))


def edited_image(members: Members) -> bytes:
    """A pixel was changed, and bundle.json was not."""
    name = first_of(members, "reconstructions")
    content = members[name]
    return zipped({**members, name: content[:-1] + bytes([content[-1] ^ 1])})


def doubled_name(members: Members) -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return raw_zip(*members.items(), ("plugin.py", b"x"))


def doubled_head(members: Members) -> bytes:
    name = first_of(members, "reconstructions")
    content = members[name]
    length = struct.unpack("<Q", content[:8])[0]
    head = content[8 : 8 + length].rstrip()
    again = b'{"0/targets":{"dtype":"I64","shape":[0],"data_offsets":[0,0]},' + head[1:]
    return sealed({**members, name: struct.pack("<Q", len(again)) + again + content[8 + length :]})


def without_cell(members: Members) -> bytes:
    """The attack that the defense lost against most is left out, files and all."""
    records = [json.loads(line) for line in members["records.jsonl"].splitlines()]
    gone = next(
        record["cell"]
        for record in records
        if (record["attack"]["label"], record["defense"]["label"]) == ("mi_face", "shield")
    )
    kept = {name: content for name, content in members.items() if gone not in name}
    lines = [line for line in members["records.jsonl"].splitlines() if gone.encode() not in line]
    kept["records.jsonl"] = b"\n".join(lines) + b"\n"
    return sealed(kept, lambda manifest: manifest["cells"].pop(gone))


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def setting(*path: Any, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Sets a nested value of the first record."""

    def change(records: list[dict[str, Any]]) -> None:
        part: Any = records[0]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value

    return change


def targets_of_others(tensors: dict[str, torch.Tensor]) -> None:
    tensors["0/targets"] = (tensors["0/targets"] + 1) % 3


def in_record(word: str) -> Make:
    """The first record with a word of JSON in place of its seed."""

    def make(members: Members) -> bytes:
        lines = members["records.jsonl"].decode().replace('"seed": 0', f'"seed": {word}')
        return sealed({**members, "records.jsonl": lines.encode()})

    return make


REFUSED: dict[str, tuple[Make, str]] = {
    # the archive
    "no zip file": (lambda _: b"PK? no" * 9, "does not end as a zip file does"),
    "torn": (lambda members: zipped(members)[:-100], "does not end as a zip file does"),
    "a program before it": (lambda members: b"#!/bin/sh\n" + zipped(members), "holds other data around"),
    "a comment after it": (lambda members: zipped(members)[:-2] + b"\x01\x00x", "does not end as"),
    "more than 4 GB": (
        lambda members: bytes_after(b"PK\x05\x06", 16, b"\xff" * 4, zipped(members)),
        "ZIP64",
    ),
    "too many members": (many, "members; 4,096 may be"),
    "a way up": (with_member("../../owned.txt"), r"leads out of the bundle by '\.\.'"),
    "a way up inside": (with_member("answers/../../owned.txt"), r"leads out of the bundle by '\.\.'"),
    "an absolute path": (with_member("/tmp/owned.txt"), "names a place outside the bundle"),
    "a drive": (with_member("C:owned.txt"), "names a place outside the bundle"),
    "a backslash": (with_member("answers\\owned.txt"), "has a backslash in its name"),
    "a home folder": (with_member("~/.bashrc"), "names a place outside the bundle"),
    "a name twice": (doubled_name, "stands there twice"),
    "a name in capitals": (with_member("PLUGIN.py"), "differs from a known name in upper and lower case"),
    "a name with a line end": (with_member("plugin.py\n"), "is none that a bundle has"),
    "a folder": (with_member("answers/", b""), "is none that a bundle has"),
    "a link": (
        with_member(f"answers/{'b' * 64}.safetensors", b"/etc/passwd", external_attr=_LINK << 16),
        "is a link",
    ),
    "a device": (
        with_member(f"answers/{'b' * 64}.safetensors", external_attr=(stat.S_IFCHR | 0o666) << 16),
        "is no plain file",
    ),
    "encrypted": (encrypted, "is encrypted"),
    "another compression": (by_bzip2, "is compressed by method 12"),
    "a bomb": (
        with_member(f"answers/{'b' * 64}.safetensors", bytes(60_000_000), compress_type=zipfile.ZIP_DEFLATED),
        "as bombs do",
    ),
    "a bomb of shared bytes": (overlapping, "shares bytes with another|is torn|no sound zip"),
    "a size that lies": (lying, "is torn|is shorter|no sound zip|shares bytes"),
    "an archive inside": (with_member("more.zip"), "is an archive within the archive"),
    "a pickle beside": (with_member("weights.pt"), "may hold a pickle"),
    "a file that nobody names": (unnamed, "is not named in bundle.json"),
    # pickles and tensors
    "a pickle as images": (as_images(pickle.dumps(Boom())), "is a pickle or an archive of pickles"),
    "torch's pickle as images": (as_images(raw_zip(("a/data.pkl", pickle.dumps(Boom())))), "is a pickle"),
    "no tensors": (as_images(b"\xff" * 64), "is no safetensors file"),
    "an endless head": (as_images(struct.pack("<Q", 2**62) + b"{}"), "is no safetensors file"),
    "a name twice in the head": (doubled_head, "the key '0/targets' stands there twice"),
    "images of another shape": (
        in_tensors("reconstructions", lambda t: t.update({"0/images": t["0/images"][:1]})),
        r"tensor '0/images' is U8 of shape \[1, 1, 16, 16\], wanted U8 of shape \[4, 1, 16, 16\]",
    ),
    "images of another type": (
        in_tensors("reconstructions", lambda t: t.update({"0/images": t["0/images"].float()})),
        "tensor '0/images' is F32",
    ),
    "a tensor too many": (
        in_tensors("reconstructions", lambda t: t.update({"9/images": t["0/images"].clone()})),
        "tensor '9/images' .* none is wanted",
    ),
    "targets of others": (in_tensors("reconstructions", targets_of_others), "are not those that the suite"),
    "answers of nobody": (
        in_tensors("answers", lambda t: t.update({"test": t["test"] + 99})),
        "holds a label that no private person has",
    ),
    # texts
    "a key twice": (as_text('"authors":""', '"authors":"","authors":"me"'), "the key 'authors' stands there"),
    "NaN": (in_record("NaN"), "holds NaN"),
    "Infinity": (in_record("-Infinity"), "holds -Infinity"),
    "1e999": (in_record("1e999"), "holds 1e999"),
    "an endless number": (in_record("9" * 5000), "holds 9{60}"),
    "a text of 10 MB in bundle.json": (told(title="A" * 10_000_000), "unpacks to 10,0"),
    "a text of 10 MB in a record": (
        in_records(setting("notes", "words", value="".join(f"{i:x}" for i in range(1_600_000)))),
        "bytes; at most 2,097,152 are read",
    ),
    "a text of 5000 characters": (told(title="A" * 5000), "a text has 5,000 characters; 4,000 may be"),
    "a title of 400 characters": (told(title="A" * 400), "title has more than 300 characters"),
    "deep JSON": (in_record(deep(100)), "is nested more than 32 deep"),
    "very deep JSON": (in_record(deep(20_000)), "nested"),
    "an old schema": (told(schema=0), "schema must be 1, got 0"),
    "a new schema": (told(schema=2), "schema must be 1, got 2. Update mibench"),
    "an unknown field": (told(trust="re-run"), "no field 'trust'"),
    "a wrong type": (told(params=[1]), "'params' is wrong"),
    "no object": (replaced("records.jsonl", b"[]\n"), "is no record of schema 2"),
    "no canonical JSON": (as_text(",", ", "), "is no canonical JSON"),
    "no UTF-8": (replaced("suite.toml", b"\xff\xfe"), "is no TOML"),
    "a terminal's orders": (told(title="\x1b]0;owned\x07\x1b[2J"), r"holds the character U\+001B"),
    "text turned around": (told(authors="\u202egnp.exe"), r"holds the character U\+202E"),
    "a zero-width name": (in_records(setting("attack", "title", value="a\u200bb")), r"U\+200B"),
    "a name that climbs": (told(name="../../owned"), "name '../../owned' must be lowercase letters"),
    "a plugin that climbs": (told(plugin="../../owned"), "plugin '../../owned' must be lowercase letters"),
    "a label with a script": (told(label="<script>alert(1)</script>"), "is no label of a row"),
    "a label that is a formula": (
        in_records(setting("attack", "label", value="=cmd|' /C calc'!A0")),
        "'attack'",
    ),
    "a label for LaTeX": (in_records(setting("defense", "label", value=r"\write18{rm -rf .}")), "'defense'"),
    "a cell that climbs": (in_records(setting("cell", value="../../../x")), "field 'cell'"),
    "a flag with markup": (in_records(setting("flags", value=["<b>fine</b>"])), "field 'flags'"),
    "hits of another kind": (in_records(setting("hits", value={"0": "1" * 4 + "2"})), "field 'hits'"),
    "an estimate that is text": (
        in_records(setting("estimates", "aa", value="0")),
        "estimate 'aa' is no number",
    ),
    "a failed cell": (in_records(setting("status", value="failed")), "failed. Mend the plugin"),
    "a cell twice": (in_records(lambda records: records.append(records[0])), "stands there twice"),
    "no record": (replaced("records.jsonl", b""), "has 0 cells"),
    "a record of another suite": (in_records(setting("suite", value="other")), "is of another suite"),
    "other people": (
        in_records(setting("targets", "attacked", value=[0, 1, 2])),
        "attacks other people than its suite draws",
    ),
    # what the parts say of each other
    "an edited image": (edited_image, r"reconstructions/[0-9a-f]{12}\.safetensors' is not the file"),
    "an edited plugin": (
        lambda members: zipped({**members, "plugin.py": members["plugin.py"].replace(b"= 1", b"= 2", 1)}),
        "'plugin.py' is not the file that bundle.json names: it was edited",
    ),
    "a plugin that is no text": (replaced("plugin.py", b"\x00\x01"), "holds a zero byte"),
    "another plugin's name": (told(plugin="bido"), "is not defense 'bido' in every cell"),
    "a row that is not there": (told(label="nobody"), "no cell has it"),
    "a cell left out": (without_cell, "lacks the cell with 'mi_face', stripped view, seed 0"),
    # the suite
    "a suite that is no TOML": (replaced("suite.toml", b"a = ["), "is no TOML"),
    "a deep suite": (replaced("suite.toml", b"a = " + deep(5000).encode()), "nested too deeply|is no TOML"),
    "a suite that reads a folder": (
        as_text('kind = "synthfaces"', 'kind = "folder"\npath = "/etc"', name="suite.toml"),
        r"names a file \('path'\)",
    ),
    "a suite that reads weights": (
        as_text("[judge]", '[judge]\nweights = "evil.pt"', name="suite.toml"),
        r"names a file \('weights'\)",
    ),
    "a suite of endless images": (
        as_text("private_images = 4", "private_images = 4000000000", name="suite.toml"),
        "bytes of images",
    ),
    "a suite with another plugin": (
        as_text("[attacks.mean_face]", '[attacks.mean_face]\nplugin = "../../owned"', name="suite.toml"),
        r"there is no attack '\.\./\.\./owned' here",
    ),
    "a suite with an easier judge": (
        as_text("min_accuracy = 0.0", "min_accuracy = 0.5", name="suite.toml"),
        "was not measured by the settings that it names",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_in_one_sentence(
    what: str, good: Members, shelf: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, sentence = REFUSED[what]
    file = here / "their.zip"
    file.write_bytes(make(good))
    before = everything(here.parent.parent)
    assert main(["submit", "verify", str(file), "--store", str(shelf)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1, said.err
    line = said.err.removesuffix("\n")
    assert line.isprintable()
    assert len(line) < 700
    assert re.search(sentence, line), line
    assert everything(here.parent.parent) == before, "nothing was written"


def everything(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_size for file in folder.rglob("*")}
