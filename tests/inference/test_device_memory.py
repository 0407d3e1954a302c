"""Memory that does not suffice: passes are halved, sums go to main memory, each said once and remembered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_lite.exceptions import OutOfMemory
from nnunet_lite.inference import device_memory
from nnunet_lite.inference.device_memory import DeviceMemory
from nnunet_lite.inference.logit_prediction import PredictionSettings, predict_logits

CPU = torch.device("cpu")
ALLOCATOR = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ALLOCATOR), MemoryError()]


class Greedy(nn.Module):
    """Twice the image, as long as there are not too many of them."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error, self.seen = most, error, []

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return 2 * images


def settings(**changes):
    defaults = {
        "patch_size": (4, 4, 4),
        "tile_step_size": 0.5,
        "use_gaussian": True,
        "mirroring_axes": None,
        "heads": 1,
        "device": CPU,
        "sums_on_device": False,
        "autocast_dtype": None,
        "dtype_of_sums": torch.float32,
    }
    return PredictionSettings(**{**defaults, **changes})


@pytest.fixture
def image():
    return torch.rand(1, 18, 4, 4, generator=torch.Generator().manual_seed(0))  # 8 tiles


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_passes_are_halved_and_the_next_case_begins_with_what_fits(image, error, caplog):
    network, chosen = Greedy(3, error), settings(images_per_pass=8)
    for _ in range(2):
        assert torch.allclose(predict_logits(network, image, chosen).float(), 2 * image, rtol=1e-3)
    assert network.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    first, second = caplog.messages
    assert "8 images" in first and "going on with 4" in first
    assert "4 images" in second and "going on with 2" in second


def test_mirrored_copies_of_a_tile_are_parted_too(image, caplog):
    network = Greedy(3, ERRORS[0])
    chosen = settings(images_per_pass=8, mirroring_axes=(0, 1, 2))
    assert torch.allclose(predict_logits(network, image, chosen).float(), 2 * image, rtol=1e-3)
    assert network.seen[:3] == [8, 4, 2] and set(network.seen[2:]) == {2}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_one_image_too_many_is_an_error_in_one_line(image, error):
    with pytest.raises(OutOfMemory, match=r"memory of cpu .* \(4, 4, 4\)") as raised:
        predict_logits(Greedy(0, error), image, settings(images_per_pass=4))
    assert "\n" not in str(raised.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory(image):
    network = Greedy(0, RuntimeError("sizes of tensors must match"))
    with pytest.raises(RuntimeError, match="must match"):
        predict_logits(network, image, settings(images_per_pass=4))
    assert network.seen == [4]


def test_sums_that_do_not_fit_beside_one_image_go_to_main_memory(image, caplog):
    """The network fails until the sums have gone, which here shows in the settings alone."""
    memory = DeviceMemory()
    chosen = settings(images_per_pass=2, sums_on_device=True, memory=memory)

    class Beside(Greedy):
        def forward(self, images):
            self.most = 9 if memory.too_large_sums is not None else 0
            return super().forward(images)

    network = Beside(0, ERRORS[0])
    for _ in range(2):
        assert torch.allclose(predict_logits(network, image, chosen).float(), 2 * image, rtol=1e-3)
    assert network.seen == [2, 1] + 8 * [2], "passes were halved for the sums' sake"
    passes, sums = caplog.messages
    assert "going on with 1" in passes
    assert "trying once more" in sums and "image and sums" in sums


def test_device_of_sums_is_chosen_beforehand(image, monkeypatch, caplog):
    memory = DeviceMemory()
    sums = settings().memory_of_sums(image.shape[1:], 1)
    size = sums.whole + sums.image(1)
    monkeypatch.setattr(device_memory, "free_memory", lambda device: 2 * size)
    assert memory.holds_sums(size, CPU)
    assert not memory.holds_sums(2 * size, CPU) and not memory.holds_sums(3 * size, CPU)
    assert memory.holds_sums(size, CPU)
    (message,) = caplog.messages
    assert "are free" in message
    network = Greedy(9, ERRORS[0])
    chosen = settings(images_per_pass=8, sums_on_device=True, memory=DeviceMemory())
    monkeypatch.setattr(device_memory, "free_memory", lambda device: size)
    predict_logits(network, image, chosen)
    assert network.seen == [8] and chosen.memory.too_large_sums == size


def test_sums_return_when_another_program_gives_memory_back(monkeypatch, caplog):
    memory, free = DeviceMemory(), [1000]
    monkeypatch.setattr(device_memory, "free_memory", lambda device: free[0])
    memory.refuse_sums(600, CPU, "beside one image in the network")
    for free[0], fits in ((1000, False), (1400, False), (2000, True), (1000, False), (2000, True)):
        assert memory.holds_sums(600, CPU) == fits
    assert memory.holds_sums(500, CPU) and len(caplog.messages) == 1


def test_members_stay_on_a_device_that_has_room(monkeypatch):
    device, memory = torch.device("meta"), DeviceMemory()
    members = [{"weight": torch.ones(8)}, {"weight": torch.zeros(8)}]
    free = [1000]
    monkeypatch.setattr(device_memory, "free_memory", lambda device: free[0])
    first = memory.resident(members[0], device)
    assert first["weight"].device == device and memory.resident(members[0], device) is first
    free[0] = 100
    assert memory.resident(members[1], device) is members[1]
    memory.refuse_sums(1, device, "for a test")
    assert memory.resident(members[0], device) is members[0]
    assert memory.resident(members[0], CPU) is members[0]


@pytest.mark.parametrize(("device", "said"), [("cpu", False), ("cuda", True)])
def test_a_cpu_has_no_other_memory_to_go_to(device, said, caplog, monkeypatch):
    monkeypatch.setattr(device_memory, "free_memory", lambda device: None)
    DeviceMemory().refuse_sums(100, torch.device(device), "too many")
    (message,) = caplog.messages
    assert ("kept in main memory" in message) == said and ("trying once more" in message) != said
