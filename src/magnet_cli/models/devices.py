"""The devices that networks run on, by torch's names: "cpu", "cuda", "cuda:1", "mps"."""

import torch

from magnet_cli.errors import GeneratorError


def check_device(device: str | torch.device) -> torch.device:
    """Return the torch device of a name; GeneratorError if this machine has no such device."""
    kind, _, number = str(device).partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) < counts.get(kind, 0):
        return torch.device(device)
    present = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
    message = f"there is no device {str(device)!r} here; found: {present}"
    raise GeneratorError(message, 'pass `device="cpu"`, or one of those found (MAGNET_DEVICE sets the default)')


def parse_devices(names: str | None) -> list[str]:
    """Return the devices in a comma-separated list, checked; "all" means all CUDA devices, None the default device."""
    devices = (names or default_device()).split(",")
    if devices == ["all"]:
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if not devices:
            message = "all CUDA devices are requested, and there is none here"
            raise GeneratorError(message, 'pass `device="cpu"`, with `workers=W` for W processes')
    for device in devices:
        check_device(device)
    return devices


def default_device() -> str:
    """Return the device that the command line uses by default: "cuda" if there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
