"""Streamed archives: what numpy and zip tools read, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from nnunet_lite.exceptions import StorageError
from nnunet_lite.utilities import npz_stream as module
from nnunet_lite.utilities.npz_stream import npz_stream


def write(file: Path, array: np.ndarray, threads: int = 2) -> None:
    with npz_stream(file, "probabilities", array.shape, threads) as stream:
        for channel in array:
            stream.write(channel)


ARRAYS = {
    "noise": np.random.default_rng(0).random((3, 5, 70, 90), np.float32),
    "constant": np.ones((2, 300, 700), np.float32),
    "zeros": np.zeros((2, 3), np.float32),
    "one value": np.full((1, 1, 1), 0.25, np.float32),
    "no channel": np.zeros((0, 4), np.float32),
    "an empty axis": np.zeros((2, 0, 4), np.float32),
    "every exponent": np.random.default_rng(1).integers(0, 2**32, (4, 99_999), np.uint64).astype(np.uint32).view("<f4"),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("block", [2**20, 4096, 1001])
def test_numpy_reads_what_was_written(tmp_path, name, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    write(tmp_path / "a.npz", ARRAYS[name])
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["probabilities"]
        read = archive["probabilities"]
    assert read.dtype == np.float32 and read.shape == ARRAYS[name].shape
    assert read.tobytes() == ARRAYS[name].tobytes()


def test_it_is_a_sound_zip_that_depends_on_the_content_alone(tmp_path):
    for threads in (1, 2, 5):
        write(tmp_path / f"{threads}.npz", ARRAYS["noise"], threads)
    contents = {(tmp_path / f"{threads}.npz").read_bytes() for threads in (1, 2, 5)}
    assert len(contents) == 1
    with zipfile.ZipFile(tmp_path / "1.npz") as archive:
        assert archive.testzip() is None
        (member,) = archive.infolist()
        assert member.compress_type == zipfile.ZIP_DEFLATED
        assert member.file_size > ARRAYS["noise"].nbytes > member.compress_size
    with zipfile.ZipFile(tmp_path / "1.npz", "a") as archive:  # other tools can go on with it
        archive.writestr("more.txt", "text")
    assert np.array_equal(np.load(tmp_path / "1.npz")["probabilities"], ARRAYS["noise"])


def test_transposed_values_and_those_of_another_type_are_written_in_order(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4)
    with npz_stream(tmp_path / "a.npz", "x", (4, 3, 2), 1) as stream:
        stream.write(array.T)
    assert np.array_equal(np.load(tmp_path / "a.npz")["x"], array.T)


def test_the_array_may_be_used_again_after_each_write(tmp_path):
    buffer = np.empty((500, 1000), np.float32)
    with npz_stream(tmp_path / "a.npz", "x", (3, *buffer.shape), 2) as stream:
        for value in range(3):
            buffer[:] = value
            stream.write(buffer)
    assert np.load(tmp_path / "a.npz")["x"][:, 499, 999].tolist() == [0, 1, 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_too_few_or_too_many_values_leave_no_file(tmp_path, channels):
    with pytest.raises(ValueError, match="bytes were written"), npz_stream(tmp_path / "a.npz", "x", (2, 5), 1) as out:
        for _ in range(channels):
            out.write(np.zeros(5, np.float32))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_no_file(tmp_path, monkeypatch):
    def full(self: module.NpzStream) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.NpzStream, "_take", full)
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path / "a.npz", ARRAYS["noise"])
    assert not list(tmp_path.iterdir())


def test_sizes_beyond_32_bits_stand_in_the_headers(tmp_path):
    """Five GiB of the same byte, without writing them: the counters are what the headers are made of."""
    with (tmp_path / "a.npz").open("wb") as target, module.NpzStream(target, "x", (2,), 1) as stream:
        stream.write(np.zeros(2, np.float32))
        stream._size, stream._compressed = 5 * 2**30, 5 * 2**30 + 3
        target.write(stream._directory(target.tell()))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.infolist()[0].file_size == 5 * 2**30
        assert archive.infolist()[0].compress_size == 5 * 2**30 + 3
