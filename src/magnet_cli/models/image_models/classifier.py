"""The parts that the networks of classifiers share: `build` and `outputs`, as `image_model` calls them."""

from collections.abc import Callable

from torch import Tensor, nn


def builder(make: Callable[[], nn.Module]) -> Callable[[dict[str, Tensor]], nn.Module]:
    """Return a function that makes a network of a state dict; torch raises RuntimeError if tensors do not fit."""

    def build(state: dict[str, Tensor]) -> nn.Module:
        network = make()
        network.load_state_dict(state)
        return network

    return build


def outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return logits [B, classes] and features [B, F] by their names."""
    logits, features = network(images)
    return {"logits": logits, "features": features}
