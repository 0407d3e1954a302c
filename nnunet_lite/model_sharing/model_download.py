"""Downloading a zip of models, so that an interrupted download goes on, and installing it."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from nnunet_lite.exceptions import ArgumentError, StorageError, nnUNetError
from nnunet_lite.model_sharing.model_import import install_model_from_zip_file
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.utilities.files import storage_errors
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size

_CHUNK = 2**17
_TIMEOUT = 100.0  # seconds without a byte
_SLOWEST = 2**10  # bytes a second; a server that sends less for _TIMEOUT seconds never ends
_ATTEMPTS = 5  # to go on with a connection that broke
_ZIP = b"PK"


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
    file = download(url, Path(os.fspath(nnUNet_results)) / ".downloads", sha256)
    try:
        installed = install_model_from_zip_file(file, overwrite)
    except StorageError:  # --overwrite or more room helps: the download is kept for the next try
        os.replace(file, file.with_suffix(".part"))
        raise
    except nnUNetError as error:
        file.unlink()
        raise type(error)(str(error).replace(str(file), url)) from error
    file.unlink()
    return installed


def download(url: str, folder: Path, sha256: str | None = None) -> Path:
    """The file behind an address, complete, in a folder; a part of an earlier download there is completed."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ArgumentError(
            f"{url}: expected an address that begins with https://, http:// or file://; a zip on this machine is for "
            "nnUNetv2_install_pretrained_model_from_zip"
        )
    target = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"
    partial = target.with_suffix(".part")
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            before = _size(partial)
            try:
                _fetch(url, partial)
                break
            except _Broken as error:
                if attempt == _ATTEMPTS or _size(partial) <= before:
                    raise ArgumentError(
                        f"{url}: the download broke off ({error}); the same command goes on with it"
                    ) from error
                logger.warning("The connection broke (%s); going on", error)
    _require_sum(url, partial, sha256)
    os.replace(partial, target)
    return target


class _Broken(Exception):
    """A connection that ended too early."""


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, not to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise ArgumentError(f"{req.full_url} leads to {newurl}, which is no web address; check the address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _fetch(url: str, partial: Path) -> None:
    """Append what is missing of a file."""
    there = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.build_opener(_WebRedirects).open(request, timeout=_TIMEOUT) as answer:
            goes_on = there > 0 and getattr(answer, "status", None) == 206
            start = there if goes_on else 0
            length = answer.headers.get("Content-Length")
            whole = None if length is None else int(length) + start
            _require_room(url, partial, None if whole is None else whole - start)
            _save(url, answer, partial, start, whole)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:  # nothing is missing
            return
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
        partial.unlink()
        raise ArgumentError(f"{url}: the server sends more than the {whole} bytes it has announced; try again")
    _require_zip(url, partial)


def _require_zip(url: str, file: Path) -> None:
    with file.open("rb") as content:
        begin = content.read(len(_ZIP))
    if begin != _ZIP:
        file.unlink()
        raise ArgumentError(f"{url} is no zip: the server sent something else, a page perhaps; check the address")


def _require_sum(url: str, file: Path, expected: str | None) -> None:
    if expected is None:
        return
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected.strip().lower():
        size = file.stat().st_size
        file.unlink()
        raise StorageError(
            f"{url}: the file of {size} bytes has SHA-256 {digest.hexdigest()}, expected {expected}: not installed"
        )
