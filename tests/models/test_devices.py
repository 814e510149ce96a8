"""The devices that names mean; how many of each a machine has is what torch says."""

import pytest
import torch

from magnet_cli import models
from magnet_cli.errors import GeneratorError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_a_list_all_and_the_default():
    assert models.parse_devices("cuda:1,cuda:0") == ["cuda:1", "cuda:0"]
    assert models.parse_devices("all") == ["cuda:0", "cuda:1"]
    assert models.parse_devices(None) == [models.default_device()] == ["cuda"]
    assert models.check_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(GeneratorError, match=r"no device 'cuda:2' here; found: cpu \(1\), cuda \(2\)"):
        models.parse_devices("cpu,cuda:2")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu():
    assert models.parse_devices(None) == [models.default_device()] == ["cpu"]
    assert models.check_device(torch.device("cpu")) == torch.device("cpu")
    for names in ("cuda", "all", "cpu,cuda:0"):
        with pytest.raises(GeneratorError):
            models.parse_devices(names)
