"""Zip files from anybody, read in memory: nothing is unpacked to a disk, and of no size beyond fixed ones.

A name is admitted by a pattern, so that no member can be a folder, an archive or lie elsewhere. The directory
of the archive is looked at before Python reads it, which believes the number of members that it names.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mibench.errors import BoardError

MIB = 2**20
MOST_FILE = 2048 * MIB  # of the archive and of all members together
MOST_MEMBERS = 4096
MOST_RATIO = 200  # texts of records reach 50; deflate itself ends at 1032
_MOST_DIRECTORY = MIB  # 4096 members have 700 kB at most
_FREE = 64 * 1024  # bytes of a member below which its ratio does not matter
_CHUNK = MIB
_END = struct.Struct("<4s4H2LH")  # the end of the directory, section 4.3.16 of PKWARE's APPNOTE 6.3.10
_LOCAL = 30  # bytes of a local header without name and extra field, section 4.3.7
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # bits 0, 6 and 13 of the flags, section 4.4.4
_UNKNOWN_SIZE = 0xFFFF, 0xFFFFFFFF  # what ZIP64 writes where the real value is elsewhere
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SHOWN = 60  # characters of a name in a message
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    EOFError,
    ValueError,
    LookupError,
)

_NAME_FAULTS = (
    (r"\0", "has a zero byte in its name. Pack it again."),
    (r"^([/\\~]|[a-z]:)", "names a place outside the bundle. Pack it again."),
    (r"(^|[/\\])\.\.([/\\]|$)", "leads out of the bundle by '..'. Pack it again."),
    (r"\\", "has a backslash in its name. Pack it again."),
    (
        r"\.(pkl|pickle|pt|pth|ckpt|npy|npz|joblib)$",
        "may hold a pickle, which is a program and is never loaded. Put tensors into .safetensors.",
    ),
    (
        r"\.(zip|tar|gz|tgz|bz2|xz|7z|zst|whl)$",
        "is an archive within the archive. Pack its content alone.",
    ),
)

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        r"bundle\.json": MIB,
        r"plugin\.py": MIB // 2,
        r"suite\.toml": MIB,
        r"records\.jsonl": 64 * MIB,
        r"reconstructions/[0-9a-f]{12}\.safetensors": 512 * MIB,
        r"answers/[0-9a-f]{64}\.safetensors": 64 * MIB,
    }
)
"""The names that a bundle may have, as patterns, and the most bytes of each."""


@dataclass(frozen=True)
class Archive:
    """An open bundle whose directory was found sound; members are read and checked one by one.

    Args:
        where: what messages begin with.
        members: directory entries by name.
        opened: the archive.
    """

    where: str
    members: Mapping[str, zipfile.ZipInfo]
    opened: zipfile.ZipFile

    def read(self, name: str) -> bytes:
        """The content of a member, read in chunks and never more than its directory entry says.

        Raises:
            BoardError: it is not there, torn, or not what the directory says.
        """
        info = self.members.get(name)
        if info is None:
            raise BoardError(f"{self.where}: '{name}' is missing. Pack it again.")
        content = bytearray()
        try:
            with self.opened.open(info) as member:
                while chunk := member.read(min(_CHUNK, info.file_size + 1 - len(content))):
                    content += chunk
                    if len(content) > info.file_size:
                        break
        except (*_BROKEN, OSError, RuntimeError) as error:  # RuntimeError: of encryption
            raise BoardError(f"{self.where}: '{name}' is torn ({_shown(error)}). Fetch it again.") from error
        if len(content) != info.file_size:
            raise BoardError(f"{self.where}: '{name}' is shorter than the directory says. Fetch it again.")
        return bytes(content)


@contextmanager
def open_archive(file: Path) -> Iterator[Archive]:
    """A zip file of a bundle, once its directory was found sound.

    Raises:
        BoardError: it cannot be read, is no plain zip file, or has a member that a bundle does not have.
    """
    where = f"bundle {file.name!r:.{_SHOWN}}"
    opened, size = _opened(file, where)
    with opened:
        yield Archive(where, _checked(opened.infolist(), size, where), opened)


def _opened(file: Path, where: str) -> tuple[zipfile.ZipFile, int]:
    """The archive of a file whose end is sound, and the file's size in bytes."""
    try:
        if not file.is_file():
            raise BoardError(f"{where}: is no file. Give the .zip that `mibench submit pack` wrote.")
        size = file.stat().st_size
        if size > MOST_FILE:
            raise BoardError(f"{where}: has {size:,} bytes; {MOST_FILE:,} may be. Submit fewer cells.")
        _check_end(file, size, where)
        return zipfile.ZipFile(file), size
    except OSError as error:
        raise BoardError(f"{where}: cannot be read ({error.strerror or error}). Check its path.") from error
    except _BROKEN as error:
        raise BoardError(f"{where}: is no sound zip file ({_shown(error)}). Fetch it again.") from error


def _check_end(file: Path, size: int, where: str) -> None:
    """BoardError unless the file ends in a directory of bounded size, with nothing around it."""
    with file.open("rb") as opened:
        opened.seek(max(size - _END.size, 0))
        tail = opened.read(_END.size)
    if len(tail) < _END.size or not tail.startswith(b"PK\x05\x06"):
        raise BoardError(f"{where}: does not end as a zip file does. Fetch it again.")
    _, disk, first_disk, here, count, length, offset, comment = _END.unpack(tail)
    if _UNKNOWN_SIZE[0] in (here, count) or _UNKNOWN_SIZE[1] in (length, offset):
        raise BoardError(f"{where}: is a zip file of more than 4 GB (ZIP64). Submit fewer cells.")
    if count > MOST_MEMBERS or length > _MOST_DIRECTORY:
        raise BoardError(f"{where}: has {count:,} members; {MOST_MEMBERS:,} may be. Submit fewer cells.")
    if disk or first_disk or here != count or comment or offset + length != size - _END.size:
        raise BoardError(f"{where}: holds other data around its directory. Pack it again.")


def _checked(infos: list[zipfile.ZipInfo], size: int, where: str) -> dict[str, zipfile.ZipInfo]:
    """The directory by name; BoardError for the first entry that a bundle does not have."""
    if len(infos) > MOST_MEMBERS:
        raise BoardError(f"{where}: has {len(infos):,} members; {MOST_MEMBERS:,} may be. Submit fewer cells.")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        fault = _name_fault(info) or _kind_fault(info) or _size_fault(info)
        if fault:
            raise BoardError(f"{where}: member {info.orig_filename!r:.{_SHOWN}} {fault}")
        if info.filename in found:
            raise BoardError(f"{where}: member '{info.filename}' stands there twice. Pack it again.")
        found[info.filename] = info
    total = sum(info.file_size for info in infos)
    if total > MOST_FILE:
        raise BoardError(f"{where}: unpacks to {total:,} bytes; {MOST_FILE:,} may be. Submit fewer cells.")
    _check_apart(infos, size, where)
    return found


def _name_fault(info: zipfile.ZipInfo) -> str:
    """What is wrong with the name of a member, as the end of a sentence; empty where nothing is."""
    name = info.orig_filename  # as the file has it; `filename` ends at a zero byte
    for pattern, fault in _NAME_FAULTS:
        if re.search(pattern, name, re.IGNORECASE):
            return fault
    if any(re.fullmatch(pattern, name) for pattern in LIMITS):
        return ""
    if any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in LIMITS):
        return "differs from a known name in upper and lower case. Pack it again."
    return "is none that a bundle has. Pack it again."


def _kind_fault(info: zipfile.ZipInfo) -> str:
    """What is wrong with the kind of a member; empty where it is a plain file."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link, which may lead anywhere. Put the file itself there."
    if kind not in {0, stat.S_IFREG} or info.is_dir():
        return "is no plain file. Pack it again."
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted. Pack it without a password."
    if info.compress_type not in _METHODS:
        return f"is compressed by method {info.compress_type}. Store it, or deflate it."
    return ""


def _size_fault(info: zipfile.ZipInfo) -> str:
    """What is wrong with the size that a member claims; empty where nothing is."""
    most = next(most for pattern, most in LIMITS.items() if re.fullmatch(pattern, info.filename))
    if info.file_size > most:
        return f"unpacks to {info.file_size:,} bytes; at most {most:,} are read. Make it smaller."
    if info.file_size > max(_FREE, MOST_RATIO * info.compress_size):
        return f"unpacks to more than {MOST_RATIO} times its size, as bombs do. Store it uncompressed."
    return ""


def _check_apart(infos: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """BoardError where the data of two members overlap: a bomb that needs no high ratio."""
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise BoardError(f"{where}: member '{info.filename}' shares bytes with another. Pack it again.")
        end = info.header_offset + _LOCAL + len(info.filename) + info.compress_size
    if end > size:
        raise BoardError(f"{where}: ends before its last member does. Fetch it again.")


def _shown(error: Exception) -> str:
    """An error of the zip reader on one line of bounded length: it repeats names from the file."""
    return " ".join(f"{error!s:.120}".split()) or type(error).__name__
