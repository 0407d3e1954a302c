"""Compute devices: names to torch devices, thread counts, autocast, and what a processor can do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch

from nnunet_lite.configuration import num_compute_threads
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.logging import logger

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_OUT_OF_MEMORY = (  # of a CPU, an Apple GPU, cuDNN and cuBLAS, CUDA itself; torch's errors of them have no own type
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA out of memory",
    "CUDA error: out of memory",
)


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device of a -device flag; auto is an NVIDIA GPU if there is one, else an Apple GPU, else the CPU.

    Raises:
        ArgumentError: an unknown name, or a device this machine does not have.
    """
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device not in ("cpu", "cuda", "mps"):
        raise ArgumentError(
            f"-device {device!r}: expected cpu, cuda, mps or auto "
            "(choose one of several GPUs with CUDA_VISIBLE_DEVICES, not here)"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(
            "-device cuda, but PyTorch sees no CUDA GPU here; use -device cpu (or auto: the best there is), "
            "or check the driver and that a CUDA build of PyTorch is installed"
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise ArgumentError("-device mps, but PyTorch sees no Apple GPU here; use -device cpu")
    return torch.device(device)


def require_device(device: torch.device) -> None:
    """Raise ArgumentError if this machine has no device of this type, or not as many."""
    if device.type in ("cuda", "mps"):
        resolve_device(device.type)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArgumentError(f"There is no GPU {device}: PyTorch sees {torch.cuda.device_count()}, numbered from 0")


def set_num_threads(device: torch.device) -> None:
    """The threads of a CPU computation; one where the GPU computes and workers need the cores."""
    torch.set_num_threads(num_compute_threads() if device.type != "cuda" else 1)


@contextlib.contextmanager
def num_threads(number: int) -> Iterator[None]:
    """Use `number` torch threads within the block and restore the former count, also after an error."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, number))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_supports_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AMX or AVX-512 BF16); without it bf16 is slower."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return any(bool(f()) for f in (check, amx) if f is not None)


def cuda_supports_bf16(device: torch.device) -> bool:
    """Whether this GPU multiplies bfloat16 in hardware: NVIDIA's from Ampere on, AMD's."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def resolve_precision(name: str, device: torch.device, *, training: bool) -> torch.dtype | None:
    """Autocast type of a --precision flag; None means float32 throughout.

    `auto` is fp16 on CUDA, as upstream has it (bf16 is as fast there and needs no loss scaling, but has 8 bits of
    precision instead of 11); on a CPU it is bf16 for training where the processor has it, and float32 for prediction,
    where results are compared voxel by voxel.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if training and device.type == "cpu" and cpu_supports_bf16() else None
    if name not in PRECISIONS:
        raise ArgumentError(f"--precision {name!r}: expected auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ArgumentError("--precision fp16 needs a GPU; on a CPU use bf16 or float32")
    if name == "bf16" and device.type == "cuda":
        require_device(device)  # else asking it fails in torch's words
        if not cuda_supports_bf16(device):
            raise ArgumentError(
                "--precision bf16: this GPU has no bfloat16 (Ampere and later have); use fp16 or float32"
            )
    return PRECISIONS[name]


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[object]:
    """Mixed precision within the block, or nothing for None."""
    if precision is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=precision, enabled=True)


def empty_cache(device: torch.device) -> None:
    """Give unused memory of an accelerator back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, of a device or of this machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a GPU, those that torch keeps for itself included; None where nobody says."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def in_main_memory(values: torch.Tensor) -> torch.Tensor:
    """A tensor (c, ...) on the CPU.

    One with gaps, a view without padding say, comes channel by channel: a GPU puts what it sends together first, for
    which it may have no room.
    """
    if values.device.type == "cpu" or values.is_contiguous():
        return values.cpu()
    result = torch.empty(values.shape, dtype=values.dtype)
    for target, channel in zip(result, values, strict=True):
        target.copy_(channel)
    return result


def on_this_stream(device: torch.device, function: Callable[..., None]) -> Callable[..., None]:
    """The function for another thread: what it asks of a GPU follows what this thread has asked before.

    A thread begins with the default stream, whatever stream this one uses, and streams do not wait for each other.
    """
    if device.type != "cuda":
        return function
    stream = torch.cuda.current_stream(device)

    def run(*args: Any) -> None:
        with torch.cuda.stream(stream):
            function(*args)

    return run


@cache
def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works on a device, found out once by compiling a small forward and backward pass.

    It needs Triton or a C++ compiler that torch may lack; where it fails, one warning says why and all goes on without.
    """
    try:
        values = torch.ones(8, device=device, requires_grad=True)
        compiled: Any = torch.compile(_compile_probe)
        compiled(values).backward()
    except Exception as error:  # of the compiler, of the toolchain, or of the device
        reason = (str(error).strip().splitlines() or [""])[0]
        logger.warning(
            "torch.compile does not work here (%s: %s); going on without it, which is slower "
            "(nnUNet_compile=false avoids this attempt)",
            type(error).__name__,
            reason,
        )
        return False
    return True


def _compile_probe(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.leaky_relu(values * 2 - 1).sum()
