"""Arrays as numpy writes them, channel by channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_lite.utilities.npz_channels import npz_channels


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_channels_of_what_numpy_writes(tmp_path: Path, dtype: Any, save: Any) -> None:
    values = np.random.default_rng(0).random((3, 20, 130, 110)).astype(dtype)
    save(tmp_path / "a.npz", other=np.arange(3), probabilities=values)
    with npz_channels(tmp_path / "a.npz", "probabilities") as channels:
        assert channels.shape == values.shape and channels.dtype == dtype
        for expected in values:
            np.testing.assert_array_equal(channels.read(), expected)
        with pytest.raises(ValueError, match="ends before"):
            channels.read()


def test_what_is_no_array_of_channels(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, probabilities=np.random.default_rng(0).random((2, 30, 40)))
    whole = file.read_bytes()

    def refused(content: bytes | dict[str, Any]) -> str:
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            np.savez_compressed(file, **content)
        unreadable = pytest.raises(ValueError, match=r"a\.npz is no readable file of probabilities")
        with unreadable as caught, npz_channels(file, "probabilities") as channels:
            try:
                [channels.read() for _ in range(channels.shape[0])]
            except ValueError as error:
                raise ValueError(f"{file} is no readable file of probabilities: {error}") from error
        return str(caught.value)

    refused(b"")
    refused(whole[:-30])
    refused(b"no zip at all")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    refused(bytes(damaged))
    assert "no array 'probabilities', only seg.npy" in refused({"seg": np.zeros((2, 3))})
    assert "expected floating-point" in refused({"probabilities": np.zeros((2, 3), int)})
    assert "in Fortran order" in refused({"probabilities": np.zeros((2, 3, 4)).T})
    assert "expected floating-point" in refused({"probabilities": np.array([{}, {}])})
    with pytest.raises(FileNotFoundError), npz_channels(tmp_path / "none.npz", "probabilities"):
        pass


def test_a_header_that_claims_terabytes_takes_no_memory(tmp_path: Path) -> None:
    import zipfile

    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + str({"descr": "<f4", "fortran_order": False, "shape": (2, 10**6, 10**6)}).encode().ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("probabilities.npy", header + bytes(100))
    with (
        pytest.raises(ValueError, match="is larger than its 228 bytes"),
        npz_channels(tmp_path / "a.npz", "probabilities"),
    ):
        pass


def _npz(file: Path, header: bytes, claimed: int | None = None) -> Path:
    import zipfile

    body = header.ljust(199) + b"\n"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + bytes(99))
        if claimed is not None:
            archive.getinfo("probabilities.npy").file_size = claimed
    return file


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, -6, 7)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 'a')}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}",
        b"{'descr': '<f4'",
        b"((((",
        b"'''",
        b"\xff\xfe",
        b"__import__('os').system('touch executed')",
        b"(" * 190,
    ],
)
def test_headers_that_are_none(tmp_path: Path, header: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ValueError, match=r"a\.npz is no readable file of probabilities: .+"),
        npz_channels(_npz(tmp_path / "a.npz", header), "probabilities") as channels,
    ):
        channels.read()
    assert not (tmp_path / "executed").exists()


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1000000, 1000000)}"
    file = _npz(tmp_path / "a.npz", header, claimed=8 * 10**12 + 210)
    with pytest.raises(ValueError, match="claims to hold 80000"), npz_channels(file, "probabilities"):
        pass


def test_errors_of_the_caller_stay_his_own(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="^mine$"), npz_channels(tmp_path / "a.npz", "probabilities"):
        raise ValueError("mine")
