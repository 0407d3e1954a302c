"""Downloading a zip of models, so that an interrupted download goes on, and installing it."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from nnunet_lite.exceptions import ArgumentError, StorageError
from nnunet_lite.model_sharing.model_import import install_model_from_zip_file
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.utilities.files import storage_errors
from nnunet_lite.utilities.logging import logger

_CHUNK = 2**17
_TIMEOUT = 100  # seconds without a byte
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
    installed = install_model_from_zip_file(file, overwrite)
    file.unlink()
    return installed


def download(url: str, folder: Path, sha256: str | None = None) -> Path:
    """The file behind an address, complete, in a folder; a part of an earlier download there is completed."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ArgumentError(f"{url}: expected an address that begins with https://, http:// or file://")
    target = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"
    partial = target.with_suffix(".part")
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            before = partial.stat().st_size if partial.is_file() else 0
            try:
                _fetch(url, partial)
                break
            except _Broken as error:
                progressed = partial.is_file() and partial.stat().st_size > before
                if attempt == _ATTEMPTS or not progressed:
                    raise ArgumentError(
                        f"{url}: the download broke off ({error}); the same command goes on with it"
                    ) from error
                logger.warning("The connection broke (%s); going on", error)
    _require_sum(url, partial, sha256)
    with partial.open("rb") as content:
        if content.read(2) != _ZIP:
            partial.unlink()
            raise ArgumentError(f"{url} is no zip: the server sent something else, a page perhaps; check the address")
    os.replace(partial, target)
    return target


class _Broken(Exception):
    """A connection that ended too early."""


def _fetch(url: str, partial: Path) -> None:
    """Append what is missing of a file."""
    there = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            goes_on = there > 0 and getattr(answer, "status", None) == 206
            length = answer.headers.get("Content-Length")
            whole = None if length is None else int(length) + (there if goes_on else 0)
            _save(answer, partial, there if goes_on else 0, whole)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:  # nothing is missing
            return
        raise ArgumentError(f"{url}: the server answers {error.code} {error.reason}; check the address") from error
    except (urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError) or there:
            raise _Broken(str(reason)) from error
        raise ArgumentError(f"{url} cannot be reached: {reason}; check the address and the network") from error
    except (ConnectionError, TimeoutError) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _save(answer: Any, partial: Path, start: int, whole: int | None) -> None:
    import http.client

    with (
        partial.open("ab" if start else "wb") as file,
        tqdm(total=whole, initial=start, unit="B", unit_scale=True, desc="Downloading", disable=None) as bar,
    ):
        while True:
            try:
                chunk = answer.read(_CHUNK)
            except http.client.IncompleteRead as error:
                file.write(error.partial)
                break
            if not chunk:
                break
            file.write(chunk)
            bar.update(len(chunk))
    size = partial.stat().st_size
    if whole is not None and size < whole:
        raise _Broken(f"{size} of {whole} bytes came")
    if whole is not None and size > whole:
        partial.unlink()
        raise ArgumentError(f"The server sent {size} bytes and had announced {whole}; try again")


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
