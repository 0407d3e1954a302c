"""How preprocessed cases lie on disk: compressed .b2nd arrays and a .pkl of properties; reads .npz and .npy too."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import zipfile
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import blosc2
import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError, StorageError
from nnunet_lite.preprocessing.blosc2_layout import comp_blosc2_params, select_filter
from nnunet_lite.preprocessing.preprocess_command import preprocess_command
from nnunet_lite.utilities.files import PathLike, atomic_path, load_pickle, save_pickle, subfiles, write_bytes
from nnunet_lite.utilities.npz_channels import npz_channels
from nnunet_lite.utilities.parallel import Task, collect, run_tasks

Case = tuple[Any, Any, Any, dict[str, Any]]  # data (c, x, y, z), seg (1, x, y, z), previous stage (x, y, z) or None
_LEVEL = 1  # upstream's 5 takes three times as long for files 6 % smaller; reading is as fast
_CACHED_PROPERTIES = 64 * 2**20  # bytes of .pkl files whose content one dataset object keeps


class nnUNetBaseDataset(ABC):
    """The cases of one preprocessed configuration (nnU-Net v2 2.8.1 names).

    Args:
        folder: `nnUNet_preprocessed/<dataset>/<data_identifier>`.
        identifiers: cases to offer; all of the folder by default.
        folder_with_segs_from_previous_stage: predictions of a cascade's previous stage.

    Raises:
        DatasetError: the folder does not exist.
    """

    def __init__(
        self,
        folder: PathLike,
        identifiers: Sequence[str] | None = None,
        folder_with_segs_from_previous_stage: PathLike | None = None,
    ) -> None:
        self.source_folder = os.fspath(folder)
        if not Path(folder).is_dir():
            raise DatasetError(f"There is no folder {folder}; make it: {preprocess_command(folder)}")
        self.identifiers = sorted(self.get_identifiers(folder) if identifiers is None else identifiers)
        self.folder_with_segs_from_previous_stage = folder_with_segs_from_previous_stage
        self._properties: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()

    def __getitem__(self, identifier: str) -> Case:
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> Case:
        """Data (c, x, y, z) float32, seg (1, x, y, z) int16, previous stage's seg (x, y, z) or None, properties.

        The arrays are lazy: indexing reads. Raises DatasetError if a file of the case is missing or damaged.
        """
        return *self.load_arrays(identifier), self.load_properties(identifier)

    @abstractmethod
    def load_arrays(self, identifier: str) -> tuple[Any, Any, Any]:
        """The arrays of `load_case` without the properties, which with many classes take longer to read."""

    def shape_of(self, identifier: str) -> tuple[int, ...]:
        """(c, x, y, z) of a case's data; voxels are not read where the format allows it."""
        return tuple(int(edge) for edge in self.load_arrays(identifier)[0].shape)

    @staticmethod
    @abstractmethod
    def get_identifiers(folder: PathLike) -> list[str]:
        """Sorted identifiers of all cases of a folder."""

    def require_complete(self) -> None:
        """Look at the files of every case without reading voxels: a training would meet a damaged one days later.

        Raises:
            DatasetError: files are missing or truncated; names the cases.
        """
        broken = [identifier for identifier in self.identifiers if not self._is_complete(identifier)]
        if broken:
            names = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
            command = preprocess_command(self.source_folder)
            raise DatasetError(
                f"{self.source_folder}: {len(broken)} of {len(self.identifiers)} cases are incomplete or damaged "
                f"({names}); run {command} again, it makes them anew and keeps the others"
            )

    def _is_complete(self, identifier: str) -> bool:
        """Whether a case's own files are there and not truncated."""
        file = Path(self.source_folder, f"{identifier}.pkl")
        if not file.is_file() or file.stat().st_size == 0:
            return False
        with file.open("rb") as content:
            content.seek(-1, os.SEEK_END)
            return content.read() == pickle.STOP

    def load_properties(self, identifier: str) -> dict[str, Any]:
        """Properties of a case; the content of a few is kept, because loaders ask for them again and again."""
        if identifier in self._properties:
            self._properties.move_to_end(identifier)
            return dict(self._properties[identifier][1])
        file = self._existing(self.source_folder, f"{identifier}.pkl")
        properties = cast("dict[str, Any]", load_pickle(file))
        self._properties[identifier] = (file.stat().st_size, properties)
        while len(self._properties) > 1 and sum(size for size, _ in self._properties.values()) > _CACHED_PROPERTIES:
            self._properties.popitem(last=False)
        return dict(properties)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_properties": OrderedDict()}

    def _existing(self, folder: PathLike, *names: str) -> Path:
        """The first of these files that exists. Raises DatasetError if none does."""
        for name in names:
            if (Path(folder) / name).is_file():
                return Path(folder) / name
        advice = (
            f"run {preprocess_command(folder)} again (finished cases are kept)"
            if folder == self.source_folder
            else "validate all folds of the previous stage first"
        )
        raise DatasetError(f"{' or '.join(names)} is missing in {folder}; {advice}")


class nnUNetDatasetBlosc2(nnUNetBaseDataset):
    """Cases as `<id>.b2nd`, `<id>_seg.b2nd` and `<id>.pkl`; memory-mapped, one thread per read."""

    def load_arrays(self, identifier: str) -> tuple[Any, Any, Any]:
        """See `nnUNetBaseDataset.load_arrays`."""
        data = _open_b2nd(self._existing(self.source_folder, f"{identifier}.b2nd"))
        seg = _open_b2nd(self._existing(self.source_folder, f"{identifier}_seg.b2nd"))
        previous = None
        if self.folder_with_segs_from_previous_stage is not None:
            previous = _open_b2nd(self._existing(self.folder_with_segs_from_previous_stage, f"{identifier}.b2nd"))
        return data, seg, previous

    def _is_complete(self, identifier: str) -> bool:
        try:
            data, seg = (
                _open_b2nd(self._existing(self.source_folder, f"{identifier}{part}.b2nd"))  # knows its own length
                for part in ("", "_seg")
            )
        except DatasetError:
            return False
        return tuple(data.shape[1:]) == tuple(seg.shape[1:]) and super()._is_complete(identifier)

    @staticmethod
    def save_case(
        data: NDArray[Any],
        seg: NDArray[Any],
        properties: dict[str, Any],
        output_filename_truncated: PathLike,
        chunks: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        chunks_seg: Sequence[int] | None = None,
        blocks_seg: Sequence[int] | None = None,
        clevel: int = _LEVEL,
        codec: blosc2.Codec = blosc2.Codec.LZ4HC,
        filters: blosc2.Filter | None = None,
        filters_seg: blosc2.Filter | None = None,
        nthreads: int = 1,
    ) -> None:
        """Write one case; each file appears complete or not at all, the .pkl last: with it the case is done.

        Args:
            data: (c, x, y, z), stored as float32.
            seg: (1, x, y, z), stored as int16.
            properties: see `CaseProperties`.
            output_filename_truncated: path without ending.
            chunks, blocks, chunks_seg, blocks_seg: from `comp_blosc2_params`; for a 128^3 patch by default.
            filters, filters_seg: by trying both on a sample by default.
            nthreads: compression threads.

        Raises:
            StorageError: no space left, or no permission.
        """
        data = np.ascontiguousarray(data, dtype=np.float32)
        seg = np.ascontiguousarray(seg, dtype=np.int16)
        if chunks is None or blocks is None:
            blocks, chunks = comp_blosc2_params(data.shape, (128, 128, 128), data.itemsize)
        if chunks_seg is None or blocks_seg is None:
            blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, (128, 128, 128), seg.itemsize)
        path = os.fspath(output_filename_truncated)
        Path(f"{path}.pkl").unlink(missing_ok=True)  # from here on the old case is not complete any more
        for array, file, chunk, block, chosen in (
            (data, f"{path}.b2nd", chunks, blocks, filters),
            (seg, f"{path}_seg.b2nd", chunks_seg, blocks_seg, filters_seg),
        ):
            chosen = select_filter(array, block, chunk, codec, clevel) if chosen is None else chosen
            cparams = blosc2.CParams(codec=codec, clevel=clevel, filters=[chosen], nthreads=nthreads)
            _write_b2nd(array, file, chunks=tuple(chunk), blocks=tuple(block), cparams=cparams)
        save_pickle(properties, f"{path}.pkl")

    @staticmethod
    def save_seg(
        seg: NDArray[Any],
        output_filename_truncated: PathLike,
        chunks_seg: Sequence[int] | None = None,
        blocks_seg: Sequence[int] | None = None,
    ) -> None:
        """Write a previous stage's segmentation (x, y, z) for the loader of the next stage."""
        layout = (
            {}
            if chunks_seg is None or blocks_seg is None
            else {"chunks": tuple(chunks_seg), "blocks": tuple(blocks_seg)}
        )
        _write_b2nd(np.ascontiguousarray(seg), f"{os.fspath(output_filename_truncated)}.b2nd", **layout)

    @staticmethod
    def get_identifiers(folder: PathLike) -> list[str]:
        """See `nnUNetBaseDataset.get_identifiers`."""
        return [
            name[: -len(".b2nd")] for name in subfiles(folder, ".b2nd", join=False) if not name.endswith("_seg.b2nd")
        ]

    @staticmethod
    def unpack_dataset(
        folder: PathLike, overwrite_existing: bool = False, num_processes: int = 8, verify: bool = True
    ) -> None:
        """Nothing to do: blosc2 arrays are read in place."""


class nnUNetDatasetNumpy(nnUNetBaseDataset):
    """Cases of older versions: `<id>.npz` with data and seg, unpacked `<id>.npy` and `<id>_seg.npy` where present."""

    def load_arrays(self, identifier: str) -> tuple[Any, Any, Any]:
        """See `nnUNetBaseDataset.load_arrays`."""
        archive = f"{identifier}.npz"
        data = self._load(self.source_folder, f"{identifier}.npy", archive, "data")
        seg = self._load(self.source_folder, f"{identifier}_seg.npy", archive, "seg")
        previous = None
        if self.folder_with_segs_from_previous_stage is not None:
            previous = self._load(self.folder_with_segs_from_previous_stage, f"{identifier}.npy", archive, "seg")
        return data, seg, previous

    def shape_of(self, identifier: str) -> tuple[int, ...]:
        """See `nnUNetBaseDataset.shape_of`: of a packed case the header alone is read."""
        file = self._existing(self.source_folder, f"{identifier}.npy", f"{identifier}.npz")
        if file.suffix == ".npz":
            with contextlib.suppress(ValueError), npz_channels(file, "data") as channels:
                return channels.shape
        return super().shape_of(identifier)  # which says what is wrong with a damaged one

    def _is_complete(self, identifier: str) -> bool:
        parts = [Path(self.source_folder, f"{identifier}{part}.npy") for part in ("", "_seg")]
        unpacked = all(part.is_file() for part in parts)
        archive = Path(self.source_folder, f"{identifier}.npz")
        return (unpacked or zipfile.is_zipfile(archive)) and super()._is_complete(identifier)

    def _load(self, folder: PathLike, unpacked: str, archive: str, key: str) -> NDArray[Any]:
        file = self._existing(folder, unpacked, archive)
        try:
            if file.suffix == ".npy":
                return cast("NDArray[Any]", np.load(file, mmap_mode="r", allow_pickle=False))
            with np.load(file, allow_pickle=False) as content:
                return cast("NDArray[Any]", content[key])
        except (ValueError, KeyError, OSError, EOFError) as error:
            advice = f"delete it and run {preprocess_command(folder)} again"
            raise DatasetError(f"{file} cannot be read ({error}); {advice}") from error

    @staticmethod
    def save_case(
        data: NDArray[Any], seg: NDArray[Any], properties: dict[str, Any], output_filename_truncated: PathLike
    ) -> None:
        """Write one case, arrays (c, x, y, z) and (1, x, y, z); the .pkl last."""
        path = os.fspath(output_filename_truncated)
        with atomic_path(f"{path}.npz") as temporary:
            np.savez_compressed(temporary, data=data, seg=seg)
        save_pickle(properties, f"{path}.pkl")

    @staticmethod
    def save_seg(seg: NDArray[Any], output_filename_truncated: PathLike) -> None:
        """Write a previous stage's segmentation (x, y, z)."""
        with atomic_path(f"{os.fspath(output_filename_truncated)}.npz") as temporary:
            np.savez_compressed(temporary, seg=seg)

    @staticmethod
    def get_identifiers(folder: PathLike) -> list[str]:
        """See `nnUNetBaseDataset.get_identifiers`."""
        return [name[: -len(".npz")] for name in subfiles(folder, ".npz", join=False)]

    @staticmethod
    def unpack_dataset(
        folder: PathLike, overwrite_existing: bool = False, num_processes: int = 8, verify: bool = True
    ) -> None:
        """Unpack every .npz to .npy files that can be memory-mapped."""
        tasks = [Task(Path(file).stem, _unpack, (file, overwrite_existing)) for file in subfiles(folder, ".npz")]
        collect(run_tasks(tasks, num_processes, description="Unpacking cases"))


def infer_dataset_class(folder: PathLike) -> type[nnUNetDatasetBlosc2] | type[nnUNetDatasetNumpy]:
    """Which of the two formats a folder holds; files of other kinds do not matter.

    Raises:
        DatasetError: neither, or both.
    """
    has_b2nd = Path(folder).is_dir() and bool(subfiles(folder, ".b2nd", join=False))
    has_npz = Path(folder).is_dir() and bool(subfiles(folder, ".npz", join=False))
    if has_b2nd and has_npz:
        raise DatasetError(
            f"{folder} holds .b2nd and .npz cases; delete the folder and run {preprocess_command(folder)} again"
        )
    if not has_b2nd and not has_npz:
        raise DatasetError(
            f"{folder} holds no preprocessed cases (.b2nd or .npz); run {preprocess_command(folder)} first"
        )
    return nnUNetDatasetBlosc2 if has_b2nd else nnUNetDatasetNumpy


def _unpack(archive: str, overwrite_existing: bool) -> None:
    targets = {"data": archive[:-4] + ".npy", "seg": archive[:-4] + "_seg.npy"}
    with np.load(archive, allow_pickle=False) as content:
        for key, target in targets.items():
            if overwrite_existing or not Path(target).is_file():
                with atomic_path(target) as temporary:
                    np.save(temporary, content[key])


def _open_b2nd(file: Path) -> Any:
    """A lazy blosc2 array, memory-mapped where the system can."""
    try:
        mmap_mode = None if sys.platform == "win32" else "r"
        return blosc2.open(urlpath=str(file), mode="r", dparams=blosc2.DParams(nthreads=1), mmap_mode=mmap_mode)
    except (RuntimeError, ValueError, OSError) as error:
        command = preprocess_command(file.parent)
        raise DatasetError(f"{file} is damaged ({error}); delete it and run {command} again") from error


def _write_b2nd(array: NDArray[Any], path: PathLike, **layout: Any) -> None:
    """Compress in memory, then write: a full disk is then an error with a name, not a bus error in mapped memory."""
    try:
        compressed = blosc2.asarray(array, **layout).to_cframe()
    except RuntimeError as error:
        raise StorageError(f"{path} cannot be compressed: {error}") from error
    write_bytes(compressed, path)
