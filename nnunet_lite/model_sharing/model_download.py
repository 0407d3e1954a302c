"""Downloading a zip of models, so that an interrupted download goes on, and installing it."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from nnunet_lite.exceptions import ArgumentError, StorageError, nnUNetError
from nnunet_lite.model_sharing.model_import import install_model_from_zip_file
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.utilities.files import load_json, save_json, storage_errors
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size

_CHUNK = 2**17
_TIMEOUT = 100.0  # seconds without a byte
_SLOWEST = 2**10  # bytes a second; a server that sends less for _TIMEOUT seconds never ends
_ATTEMPTS = 5  # to go on with a connection that broke
_ZIP = b"PK"
_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<whole>\d+|\*)")


def download_and_install_from_url(url: str, sha256: str | None = None, overwrite: bool = False) -> list[Path]:
    """Download a zip of models and install it into nnUNet_results (spec 03, 8.3).

    What is downloaded lies in a hidden folder there until it is installed: the same command goes on with it.

    Args:
        url: http, https or file.
        sha256: what the file must have; nothing else is installed.
        overwrite: replace models that are there.

    Raises:
        ArgumentError: no such address, no zip, another size or checksum.
        StorageError: the disk is full, or a model is there already.
    """
    _require_address(url)
    folder, shown = Path(os.fspath(nnUNet_results)) / ".downloads", without_password(url)
    with _alone(shown, folder):
        file = download(url, folder, sha256)
        try:
            installed = install_model_from_zip_file(file, overwrite)
        except StorageError:  # --overwrite or more room helps: the download is kept for the next try
            raise
        except nnUNetError as error:
            _forget(file)
            raise type(error)(str(error).replace(str(file), shown)) from error
        _forget(file)
        return installed


def without_password(url: str) -> str:
    """An address without the `user:token@` that it may hold, as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def _forget(file: Path) -> None:
    """Remove a download and what is known of it."""
    for ending in (".zip", ".part", ".json"):
        file.with_suffix(ending).unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(url: str, folder: Path) -> Iterator[None]:
    """Keep other commands from downloading the same meanwhile. Raises StorageError if one does."""
    file = folder / f"{_name_of(url)}.lock"
    with storage_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
    while True:
        with storage_errors(file):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.name == "posix":
                fcntl: Any = import_module("fcntl")
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StorageError(f"Another command is downloading {url} just now; wait until it ends") from None
                except OSError:  # a disk without locks
                    pass
                if not file.exists() or not os.path.samestat(os.fstat(descriptor), file.stat()):
                    continue  # its owner has just removed it
            try:
                yield
                return
            finally:
                with contextlib.suppress(OSError):
                    file.unlink()
        finally:
            os.close(descriptor)


def _name_of(url: str) -> str:
    return hashlib.sha256(without_password(url).encode()).hexdigest()[:16]


def download(url: str, folder: Path, sha256: str | None = None) -> Path:
    """The file behind an address, complete, in a folder; a part of an earlier download there is completed."""
    shown = without_password(url)
    _require_address(url)
    target = folder / f"{_name_of(url)}.zip"
    partial = target.with_suffix(".part")
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file():  # its installation was interrupted
            if sha256 is not None and _sum_of(target) == sha256.strip().lower():
                return target
            os.replace(target, partial)  # complete, if the server still has the same
        for attempt in range(1, _ATTEMPTS + 1):
            before = _size(partial)
            try:
                _fetch(url, partial, sha256 is not None)
                break
            except _Broken as error:
                if attempt == _ATTEMPTS or _size(partial) <= before:
                    raise ArgumentError(
                        f"{shown}: the download broke off ({error}); the same command goes on with it"
                    ) from error
                logger.warning("The connection broke (%s); going on", error)
    _require_sum(shown, partial, sha256)
    os.replace(partial, target)
    return target


def _require_address(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ArgumentError(
            f"{without_password(url)}: expected an address that begins with https://, http:// or file://; a zip on "
            "this machine is for nnUNetv2_install_pretrained_model_from_zip"
        )


class _Broken(Exception):
    """A connection that ended too early."""


class _Changed(Exception):
    """What the server sends does not go on with what is there."""


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, not to ftp; from https to http only where a checksum tells what comes."""

    def __init__(self, has_sum: bool) -> None:
        self._has_sum = has_sum

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        newurl = without_password(newurl)
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https"):
            raise ArgumentError(f"{req.full_url} leads to {newurl}, which is no web address; check the address")
        if (before, after) == ("https", "http") and not self._has_sum:
            raise ArgumentError(
                f"{req.full_url} leads to {newurl}, where anybody on the way could change the file; give its checksum "
                "with --sha256, or another address"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _fetch(url: str, partial: Path, has_sum: bool) -> None:
    """Append what is missing of a file, or get all of it if it is another one by now."""
    try:
        _fetch_rest(url, partial, has_sum)
    except _Changed as error:
        logger.warning("%s; starting again", error)
        partial.unlink()
        _fetch_rest(url, partial, has_sum)


def _request(url: str, there: int, known: dict[str, Any]) -> urllib.request.Request:
    """For all of a file, or what is missing of it if it is still the same; a password goes to its own host alone."""
    request = urllib.request.Request(without_password(url))
    if there:
        request.add_header("Range", f"bytes={there}-")
        if known.get("tag"):
            request.add_header("If-Range", known["tag"])
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    if at:
        name, _, password = user.partition(":")
        token = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _fetch_rest(url: str, partial: Path, has_sum: bool) -> None:
    there = _size(partial)
    known = _known(partial) if there else {}
    request, url = _request(url, there, known), without_password(url)
    try:
        with urllib.request.build_opener(_WebRedirects(has_sum)).open(request, timeout=_TIMEOUT) as answer:
            status, headers = getattr(answer, "status", None), answer.headers
            length = headers.get("Content-Length")
            if there and status == 206:
                start, whole = there, _total(url, headers, there, known)
            else:
                start, whole = 0, None if length is None else int(length)
            _require_room(url, partial, None if whole is None else whole - start)
            if not start:
                partial.unlink(missing_ok=True)  # or what is noted might go with what was there before
                save_json({"tag": _tag(headers), "whole": whole}, partial.with_suffix(".json"))
            _save(url, answer, partial, start, whole)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:
            total = _RANGE.fullmatch(error.headers.get("Content-Range", ""))
            if total and total["whole"] not in (None, "*", str(there)):
                raise _Changed(f"{url} has {total['whole']} bytes, {there} are here") from error
            return  # nothing is missing
        raise ArgumentError(f"{url}: the server answers {error.code} {error.reason}; check the address") from error
    except nnUNetError:
        raise
    except (urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError) or there:
            raise _Broken(str(reason)) from error
        raise ArgumentError(f"{url} cannot be reached: {reason}; check the address and the network") from error
    except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _known(partial: Path) -> dict[str, Any]:
    """What the server said of the file when its download began."""
    try:
        known = load_json(partial.with_suffix(".json"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _tag(headers: Any) -> str | None:
    """What tells one version of a file from another, byte by byte: a strong ETag, else its date."""
    tag: str = headers.get("ETag", "")
    found: str | None = tag if tag.startswith('"') else headers.get("Last-Modified")
    return found


def _total(url: str, headers: Any, there: int, known: dict[str, Any]) -> int | None:
    """Bytes of a whole file of which the server sends the rest. Raises _Changed if that does not fit what is here."""
    given = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if given is None or given["start"] != str(there):
        raise _Changed(f"{url}: the server does not go on at byte {there}")
    length = headers.get("Content-Length")
    whole = int(given["whole"]) if given["whole"] != "*" else None if length is None else there + int(length)
    for name, now in (("tag", _tag(headers)), ("whole", whole)):
        if now is not None and known.get(name) is not None and known[name] != now:
            raise _Changed(f"{url} has changed since the download began")
    return whole


def _require_room(url: str, partial: Path, missing: int | None) -> None:
    free = shutil.disk_usage(partial.parent).free
    if missing is not None and missing > free:
        raise StorageError(
            f"{url} announces {format_size(missing)}, {partial.parent} has room for {format_size(free)}; free some "
            "space and run the same command again"
        )


def _save(url: str, answer: Any, partial: Path, start: int, whole: int | None) -> None:
    """Write the body as it comes, which is looked at from its first bytes on: it may be a page, endless or too slow."""
    with (
        partial.open("ab" if start else "wb") as file,
        tqdm(total=whole, initial=start, unit="B", unit_scale=True, desc="Downloading", disable=None) as bar,
    ):
        size, since, size_then = start, time.monotonic(), start
        try:
            while chunk := answer.read1(_CHUNK):  # what has come, so that a slow server is noticed
                file.write(chunk)
                bar.update(len(chunk))
                if size < len(_ZIP) <= size + len(chunk):
                    file.flush()
                    _require_zip(url, partial)
                size += len(chunk)
                if whole is not None and size > whole:
                    break
                if time.monotonic() - since > _TIMEOUT:
                    if size - size_then < _SLOWEST * _TIMEOUT:
                        raise _Broken(f"only {format_size(size - size_then)} came in {_TIMEOUT:.0f} seconds")
                    since, size_then = time.monotonic(), size
        except OSError as error:
            if error.errno == errno.ENOSPC and whole is None:  # a body without an end, perhaps: its part is of no use
                file.truncate(0)
            raise
    if whole is not None and size < whole:
        raise _Broken(f"{size} of {whole} bytes came")
    if whole is not None and size > whole:
        _forget(partial)
        raise ArgumentError(f"{url}: the server sends more than the {whole} bytes it has announced; try again")
    _require_zip(url, partial)


def _require_zip(url: str, file: Path) -> None:
    with file.open("rb") as content:
        begin = content.read(len(_ZIP))
    if begin != _ZIP:
        _forget(file)
        raise ArgumentError(f"{url} is no zip: the server sent something else, a page perhaps; check the address")


def _require_sum(url: str, file: Path, expected: str | None) -> None:
    if expected is None:
        return
    found = _sum_of(file)
    if found != expected.strip().lower():
        size = file.stat().st_size
        _forget(file)
        raise StorageError(f"{url}: the file of {size} bytes has SHA-256 {found}, expected {expected}: not installed")


def _sum_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
