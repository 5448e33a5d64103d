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
    "evaluate": "evaluation",
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
    "evaluate",
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
    from cifar_resnet.evaluation import evaluate
    from cifar_resnet.hardware import Hardware, detect
    from cifar_resnet.model import get_cifar_resnet
    from cifar_resnet.predict import classify, load_pretrained, read_image
    from cifar_resnet.recipe import Recipe, get_recipe
    from cifar_resnet.record import Record, read_record
    from cifar_resnet.run import Run, fit
else:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        """Import a public name or a module when first used: importing the package is instant."""
        from importlib import import_module
        from importlib.util import find_spec

        if name in _WHERE:
            return getattr(import_module(f"cifar_resnet.{_WHERE[name]}"), name)
        if name.startswith("_") or find_spec(f"cifar_resnet.{name}") is None:
            raise AttributeError(f"module 'cifar_resnet' has no attribute {name!r}")
        return import_module(f"cifar_resnet.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
