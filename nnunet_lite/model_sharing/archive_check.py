"""What a zip of models may hold: looked at before anything of it is written."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.imageio.reader_writer_registry import READERS_BY_ENDING

MANIFEST = "export_manifest.json"  # in the folder of the dataset
_DATASET = re.compile(r"Dataset\d{3,}_[^/\\]+")
_MODEL = re.compile(r"[^/\\]+__[^/\\]+__[^/\\]+")
_IN_DATASET = ("inference_information.json", "inference_information.txt", "inference_instructions.txt", MANIFEST)
_ENDINGS = (".json", ".pth", ".png", ".pdf", ".txt", ".csv", "/postprocessing.pkl")
_LARGEST_RATIO = 200  # of a member that is worth a look, to its compressed size; label maps reach 100
_WORTH_A_LOOK = 2**26  # bytes
_MOST_MEMBERS = 1_000_000


def checked_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a zip of models.

    Raises:
        ArgumentError: a member that no export of models has: links, paths that lead elsewhere, foreign files, claims
            of sizes that are not true; names it.
    """
    members = [member for member in archive.infolist() if not member.is_dir()]
    if not members:
        raise ArgumentError(f"{archive.filename} holds no files")
    if len(members) > _MOST_MEMBERS:
        raise ArgumentError(f"{archive.filename} holds {len(members)} files, more than any export of models")
    seen: set[str] = set()
    for member in archive.infolist():
        reason = _fault(member, seen)
        if reason is not None:
            raise ArgumentError(
                f"{archive.filename}: {_shown(member.filename)} {reason}; this is no export of nnU-Net models, nothing "
                "was installed"
            )
        seen.add(member.filename.rstrip("/").lower())
    return members


def _fault(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    name = member.orig_filename
    parts = PurePosixPath(name).parts
    mode = member.external_attr >> 16
    if name != member.filename or "\\" in name or "\0" in name or any(ord(letter) < 32 for letter in name):
        return "has characters that no file of a model has"
    if name.startswith("/") or ".." in parts or any(":" in part for part in parts):
        return "leads out of the folder it is extracted to"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    if name.rstrip("/").lower() in seen:
        return "is there twice"
    if member.file_size > max(_WORTH_A_LOOK, _LARGEST_RATIO * member.compress_size):
        return f"claims to hold {member.file_size} bytes in {member.compress_size}"
    return None if member.is_dir() else _foreign(parts)


def _foreign(parts: Sequence[str]) -> str | None:
    if any(part.startswith(".") for part in parts):
        return "is a hidden file"
    if len(parts) < 2 or not _DATASET.fullmatch(parts[0]):
        return "lies in no folder DatasetXXX_Name"
    if len(parts) == 2:
        return None if parts[1] in _IN_DATASET else "is a foreign file"
    if parts[1] != "ensembles" and not _MODEL.fullmatch(parts[1]):
        return "lies in no folder Trainer__Plans__Configuration"
    endings = (*_ENDINGS, *(ending for _, known in READERS_BY_ENDING for ending in known))
    return None if f"/{parts[-1].lower()}".endswith(endings) else "is a foreign file"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 100 else f"{name[:100]}...")
