"""Everything nnunet_lite raises on purpose.

nnUNetError                 base; a command prints it as one line and exits with code 2
├── ArgumentError           a flag or argument that cannot work as given
├── PathError               an environment variable or folder that is missing
├── DatasetError            raw images, labels or dataset.json
├── PlansError              plans.json, a configuration, a fingerprint
├── CheckpointError         a file that is no usable checkpoint
├── ExtensionError          a trainer, planner, reader ... that cannot be found or imported
├── WorkerError             a background process died or failed
├── StorageError            a file could not be written (disk full, no permission)
├── OutOfMemory             neither the device nor main memory suffices
└── NumericalError          NaN or infinity where numbers are needed

The base derives from RuntimeError, which is what upstream raises and what users' scripts catch.
"""

from __future__ import annotations


class nnUNetError(RuntimeError):
    """Base of all errors a user can do something about; the message is complete in itself."""

    failed_cases: tuple[str, ...] = ()  # where only these failed and all others were done


class ArgumentError(nnUNetError, ValueError):
    """A flag or argument that cannot work as given."""


class PathError(nnUNetError):
    """An environment variable that is not set, or a folder that is not there."""


class DatasetError(nnUNetError, ValueError):
    """Something is wrong with raw images, labels or dataset.json."""


class PlansError(nnUNetError, ValueError):
    """Something is wrong with a plans file, a configuration or a fingerprint."""


class CheckpointError(nnUNetError):
    """A file is not a checkpoint, holds forbidden objects, or does not fit the network."""


class ExtensionError(nnUNetError):
    """A class named on the command line or in a document cannot be found or imported."""


class WorkerError(nnUNetError):
    """A background process died or failed; names the case, the cause and what to try."""


class StorageError(nnUNetError):
    """A file could not be written completely; nothing half-written is left behind."""


class OutOfMemory(nnUNetError, MemoryError):
    """Neither the device nor main memory suffices, with the least that can be asked for; names how much that is."""


class NumericalError(nnUNetError):
    """NaN or infinity where finite numbers are needed; names where it appeared."""
