"""ResNet-18 on CIFAR-10: the model, its training, and the evidence."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "get_cifar_resnet": "model",
    "load_pretrained": "predict",
    "classify": "predict",
    "read_image": "predict",
    "get_recipe": "recipe",
    "Recipe": "recipe",
    "Augmentation": "augment",
    "detect": "hardware",
    "Hardware": "hardware",
    "load": "data",
    "Dataset": "data",
    "CLASSES": "data",
    "fit": "run",
    "Run": "run",
    "Terminal": "display",
    "read_record": "record",
    "Record": "record",
    "InputError": "errors",
}
__all__ = [  # noqa: RUF022 - in the order above
    "get_cifar_resnet",
    "load_pretrained",
    "classify",
    "read_image",
    "get_recipe",
    "Recipe",
    "Augmentation",
    "detect",
    "Hardware",
    "load",
    "Dataset",
    "CLASSES",
    "fit",
    "Run",
    "Terminal",
    "read_record",
    "Record",
    "InputError",
    "__version__",
]

if TYPE_CHECKING:
    from cifar_resnet.augment import Augmentation
    from cifar_resnet.data import CLASSES, Dataset, load
    from cifar_resnet.display import Terminal
    from cifar_resnet.errors import InputError
    from cifar_resnet.hardware import Hardware, detect
    from cifar_resnet.model import get_cifar_resnet
    from cifar_resnet.predict import classify, load_pretrained, read_image
    from cifar_resnet.recipe import Recipe, get_recipe
    from cifar_resnet.record import Record, read_record
    from cifar_resnet.run import Run, fit
else:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used, so that importing the package is instant."""
        if name not in _WHERE:
            raise AttributeError(f"module 'cifar_resnet' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"cifar_resnet.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
