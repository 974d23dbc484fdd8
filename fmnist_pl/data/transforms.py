"""The transforms of torchvision as an operation, each image by itself.

`torchvision.transforms.v2` draws once for a batch and from PyTorch's global generator. So here an
image is a batch of its own, and a key that was drawn for it is the seed: slow, but the same in
chunks of any size and for every device.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

from fmnist_pl.data.augment import Drawn, Op
from fmnist_pl.data.protocol import SIDE
from fmnist_pl.options.messages import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

TRIALS = 16  # some transforms change the size of an image by chance only


@dataclass
class Torchvision(Op, name="torchvision"):
    """Torchvision's transform `name`, further keys being its arguments. Slow: image by image."""

    transform: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """The operation of a `name` and its arguments, tried on an image.

        Raises:
            UserError: no such transform, no such argument, or no image comes of an image.
        """
        import torch

        arguments = dict(parameters)
        op = cls(str(arguments.pop("name", None)), arguments)
        op.check_arguments()
        image = torch.zeros(1, 1, SIDE, SIDE)
        try:
            results = [op.apply(image, torch.tensor([key])) for key in range(TRIALS)]
        except Exception as error:
            raise UserError(
                f"{op.place}: with these arguments it does not take an image of one channel in "
                f"float32: {str(error).partition(chr(10))[0]}"
            ) from None
        if any((result.shape, result.dtype) != (image.shape, image.dtype) for result in results):
            raise UserError(f"{op.place}: changes the size or the type of images.")
        return op

    def parameters(self) -> dict[str, Any]:
        return {"name": self.transform, **self.arguments}

    @property
    def place(self) -> str:
        return f"augment.ops: {self.name}: {self.transform}"

    def check_arguments(self) -> None:
        """Hold the arguments against the transform's signature."""
        signature = inspect.signature(find(self.transform))
        legal = ", ".join(signature.parameters) or "none"
        try:
            signature.bind(**self.arguments)
        except TypeError as error:
            raise UserError(f"{self.place}: {error}; its arguments: {legal}.") from None

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Keys (N,) int64, each the seed of all chance of an image."""
        import torch

        return (torch.randint(-(2**63), 2**63 - 1, (n,), generator=generator),)

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        """Each image changed as the transform does after `torch.manual_seed(key)`, on the CPU."""
        import torch

        transform, (keys,) = find(self.transform)(**self.arguments), drawn
        results = []
        with torch.random.fork_rng(devices=[]):
            for image, key in zip(images.cpu(), keys.tolist(), strict=True):
                torch.default_generator.manual_seed(key)  # torch.manual_seed: those of GPUs, too
                results.append(transform(image.clone()))  # some work in place if they are told to
        return torch.stack(results).to(images.device)


def find(name: str) -> type[Any]:
    """The class of a transform.

    Raises:
        UserError: torchvision has none of that name.
    """
    from torchvision.transforms import v2

    known = {
        known: kind
        for known, kind in vars(v2).items()
        if inspect.isclass(kind) and issubclass(kind, v2.Transform) and kind is not v2.Transform
    }
    if name in known:
        return known[name]
    near = ", ".join(get_close_matches(name, known, cutoff=0.5))
    raise UserError(
        f"augment.ops: torchvision: name={name}: torchvision.transforms.v2 has no such transform."
        + (f" The nearest: {near}." if near else "")
    )
