"""Every claim of the notes as an experiment: what is trained, how often, on which device.

`cifar_resnet.queue` runs them; `cifar-resnet experiments list` shows them.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from cifar_resnet.augment import Augmentation
from cifar_resnet.errors import InputError
from cifar_resnet.recipe import Recipe, assignments, get_recipe
from cifar_resnet.record import Record, read_record

SET_ASIDE = ".set-aside-"  # in the names of folders with runs that are not gone on with
_CORES = 2  # what the times of the fast CPU recipes are meant for


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a named recipe with some fields changed.

    Attributes:
        label: in folder names and tables.
        recipe: a key of `cifar_resnet.recipe.RECIPES`.
        changes: fields and values, as for `get_recipe`.
        precision: ``"fp32"`` or ``"bf16"`` where that is what is compared; else any will do.
    """

    label: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    precision: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A claim and the runs that test it.

    Attributes:
        name: on the command line and in folder names.
        claim: what the notes say.
        arms: what is compared.
        seeds: with which each arm is run.
        equal: what all arms have as much of: ``"epochs"``, or roughly ``"time"`` or floating-point
            ``"operations"``.
        device: ``"cpu"`` or ``"cuda"``, which it is meant for.
        timed: whether its times count, too; on CPUs those of two cores.
    """

    name: str
    claim: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    equal: str = "epochs"
    device: str = "cpu"
    timed: bool = False


@dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        experiment: its name.
        arm: what it trains.
        seed: of its random numbers.
        device: the kind it is meant for.
        timed: whether its time counts, so that it has the machine to itself.
    """

    experiment: str
    arm: Arm
    seed: int
    device: str = "cpu"
    timed: bool = False

    @cached_property
    def recipe(self) -> Recipe:
        """What it trains."""
        return get_recipe(self.arm.recipe, **self.arm.changes)

    @property
    def threads(self) -> int | None:
        """How many it must have, if that matters."""
        return _CORES if self.timed and self.device == "cpu" else None

    @property
    def folder(self) -> str:
        """Where it keeps its files, below the folder of all runs."""
        return f"{self.experiment}/{self.arm.label}/seed{self.seed}"

    def arguments(self, *others: "Job") -> list[str]:
        """The words after ``cifar-resnet`` that run it, and others that differ in the seed."""
        changes = assignments(self.arm.changes)
        seeds = ",".join(str(job.seed) for job in (self, *others))
        return [
            *("train", self.arm.recipe, "--seed", seeds, "--resume"),
            *(word for change in changes for word in ("--set", change)),
            *(("--threads", str(self.threads)) if self.threads else ()),
            *(("--precision", self.arm.precision) if self.arm.precision else ()),
        ]

    def answered_by(self, record: Record) -> bool:
        """Whether a record is of this recipe in every field, this seed and such hardware.

        If its time counts, it must have been trained in one go.
        """
        used = record.hardware
        return (
            (record.recipe, record.seed) == (self.recipe, self.seed)
            and used.kind == self.device
            and self.threads in (None, used.threads)
            and (not self.timed or (used.processes == 1 and record.sessions == 1))
            and self.arm.precision in (None, used.precision)
        )


def _arms(recipe: str, arms: Mapping[str, Mapping[str, Any]], **common: Any) -> tuple[Arm, ...]:
    """Arms of one recipe, by label: what each changes, and what all do."""
    return tuple(Arm(label, recipe, {**common, **changes}) for label, changes in arms.items())


_STEMS = {
    "original": {"network": "resnet18-original"},
    "small-conv": {"network": "resnet18-small-conv"},
    "no-pooling": {"network": "resnet18-no-pooling"},
    "full": {"network": "resnet18"},
}
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "everything": {},
    "no-momentum": {"momentum": 0.0},
    "no-momentum-same-step": {"momentum": 0.0, "learning_rate": 1.0},  # 0.1 / (1 - 0.9)
    "constant-rate": {"schedule": "constant"},
    "no-weight-decay": {"weight_decay": 0.0},
    "no-label-smoothing": {"label_smoothing": 0.0},
    "no-erasing": {"erasing_probability": 0.0},
    "no-crop-and-flip": {"crop_padding": 0, "flip_probability": 0.0},
}
# Without Muon (batch size and learning rate suit SGD), small images, alternating flips.
_FAST_CPU: dict[str, dict[str, Any]] = {
    "everything": {},
    "sgd": {
        "optimizer": "sgd",
        "batch_size": 64,
        "learning_rate": 0.1,
        "warmup_epochs": 1.0,
        "momentum": 0.9,
    },
    "full-resolution": {"low_resolution_share": 0.0},
    "random-flip": {"alternating_flip": False, "flip_probability": 0.5},
}
_SGD = {"optimizer": "sgd", "batch_size": 512, "learning_rate": 0.4, "momentum": 0.9}
_NOTES_ERASING = {
    name: getattr(Augmentation(), name)
    for name in ("erasing_probability", "erasing_area", "erasing_aspect")
}
# Without Muon (batch size and learning rate suit SGD), or less a part.
_FAST: dict[str, dict[str, Any]] = {
    "everything": {},
    "notes-erasing": _NOTES_ERASING,
    "no-nesterov": {"nesterov": False},
    "sgd": {**_SGD, "warmup_epochs": 1.0},
}
# What the recipe was before it was tuned, for more epochs, on held-out images.
_BEFORE = {"learning_rate": 0.12, "warmup_epochs": 1.0, **_NOTES_ERASING}
_FAST_BEFORE: dict[str, dict[str, Any]] = {
    "everything": {},
    "sgd": _SGD,
    "batch-256": {"batch_size": 256, "learning_rate": 0.06},
    "no-nesterov": {"nesterov": False},
    "no-warm-up": {"warmup_epochs": 0.0},
}


def _depths(*depths: int) -> dict[str, dict[str, Any]]:
    names = [f"{kind}{depth}" for depth in depths for kind in ("plain", "resnet")]
    return {name: {"network": name} for name in names}


def _precision(**changes: Any) -> tuple[Arm, ...]:
    return tuple(Arm(kind, "notes", changes, precision=kind) for kind in ("fp32", "bf16"))


_SURGERY = "3x3 first convolution and no pooling keep detail that 32x32 images need"
_CONFIGURATION = "each part of the training configuration earns its place"
_PRECISION = "training in bf16 ends where training in float32 does"
_DEGRADATION = "deeper plain networks train worse; residual ones do not"

_on_gpu = partial(Experiment, device="cuda")

# In the order in which they run: what tells most for the least time comes first.
EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("degradation-cpu", _DEGRADATION, _arms("depth", _depths(20, 56), epochs=6)),
    Experiment("surgery-cpu", _SURGERY, _arms("notes", _STEMS, epochs=4, warmup_epochs=1.0)),
    Experiment(
        "surgery-operations-cpu",
        "for as many operations, too, the small stem wins over the original one",
        _arms(
            "notes",
            {
                "full": {**_STEMS["full"], "epochs": 4},
                "original": {**_STEMS["original"], "epochs": 61},
            },
            warmup_epochs=1.0,
        ),
        equal="operations",
    ),
    Experiment(
        "configuration-cpu",
        _CONFIGURATION,
        _arms("notes", _LEFT_OUT, network="resnet20", epochs=8, warmup_epochs=1.0),
    ),
    Experiment("notes-cpu", "the note's recipe in 16 epochs", (Arm("run", "notes-cpu"),)),
    Experiment(
        "fast-cpu-short",
        "90 % on two CPU cores in 20 minutes",
        (Arm("run", "fast-cpu-short"),),
        timed=True,
    ),
    Experiment(
        "fast-cpu", "94 % on two CPU cores in an hour", (Arm("run", "fast-cpu"),), timed=True
    ),
    Experiment(
        "precision-cpu", _PRECISION, _precision(network="resnet20", epochs=5, warmup_epochs=1.0)
    ),
    Experiment(
        "fast-cpu-parts",
        "each part of the fast CPU recipes pays",
        _arms("fast-cpu-short", _FAST_CPU),
        timed=True,
    ),
    Experiment(
        "fast-cpu-time",
        "small images first reach more in the same time",
        _arms(
            "fast-cpu-short",
            {"everything": {}, "full-resolution": {"low_resolution_share": 0.0, "epochs": 4}},
        ),
        equal="time",
        timed=True,
    ),
    Experiment(
        "fast-parts-cpu",
        "each part of the fast recipe paid before it was tuned",
        _arms("fast", _FAST_BEFORE, network="resnet20", epochs=8, **_BEFORE),
    ),
    Experiment(
        "fast-erasing-cpu",
        "the fast recipe's square erased from every image beats the note's erasing",
        _arms(
            "fast",
            {"everything": {}, "notes-erasing": _NOTES_ERASING},
            network="resnet20",
            epochs=16,
        ),
    ),
    _on_gpu(
        "fast-short",
        "95 % on a GPU in 25 seconds",
        (Arm("run", "fast", {"epochs": 34, **_BEFORE}),),
        timed=True,
    ),
    _on_gpu(
        "fast", "96 % on a GPU in a minute", (Arm("run", "fast"),), (0, 1, 2, 3, 4), timed=True
    ),
    _on_gpu("notes", "the note's recipe in full", (Arm("run", "notes"),)),
    _on_gpu("fast-parts", "each part of the fast recipe pays", _arms("fast", _FAST), timed=True),
    _on_gpu("precision", _PRECISION, _precision(network="resnet20", epochs=20)),
    _on_gpu("surgery", _SURGERY, _arms("notes", _STEMS, epochs=30)),
    _on_gpu("configuration", _CONFIGURATION, _arms("notes", _LEFT_OUT, epochs=30)),
    _on_gpu("degradation", _DEGRADATION, _arms("depth", _depths(20, 32, 44, 56))),
)


def select(names: Sequence[str], device: str | None = None) -> list[Experiment]:
    """The named experiments in the queue's order; if none is named, all, or the device's.

    Args:
        names: of experiments.
        device: ``"cpu"`` or ``"cuda"``, where they are to run.

    Raises:
        InputError: if a name is unknown, or of an experiment for another device.

    Example:
        >>> [experiment.name for experiment in select(["surgery", "notes"])]
        ['notes', 'surgery']
        >>> select(["note"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: experiment 'note' is unknown; choose from: degrad...
    """
    known = [experiment.name for experiment in EXPERIMENTS]
    for name in names:
        if name not in known:
            raise InputError(f"experiment {name!r} is unknown; choose from: {', '.join(known)}")
    chosen = [e for e in EXPERIMENTS if e.name in names]
    for experiment in chosen:
        if device not in (None, experiment.device):
            raise InputError(
                f"experiment {experiment.name!r} is for {experiment.device}, not {device}; give "
                f"--device {experiment.device}, or train its recipe by itself"
            )
    return chosen or [e for e in EXPERIMENTS if device in (None, e.device)]


def jobs(experiments: Iterable[Experiment]) -> list[Job]:
    """All runs, one seed of every arm before the next seed.

    >>> [job.folder for job in jobs(select(["notes"]))]
    ['notes/run/seed0', 'notes/run/seed1', 'notes/run/seed2']
    """
    return [
        Job(experiment.name, arm, seed, experiment.device, experiment.timed)
        for experiment in experiments
        for seed in experiment.seeds
        for arm in experiment.arms
    ]


def finished(folders: Iterable[Path]) -> list[Record]:
    """Every valid record of CIFAR-10's test images below some folders.

    >>> finished([Path("nowhere")])
    []
    """
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*.json")):
            if SET_ASIDE in str(path.relative_to(folder)):
                continue
            with suppress(InputError):
                record = read_record(path)
                if (record.data.name, record.data.eval_split) == ("cifar10", "test"):
                    found.append(record)
    return found


def missing(wanted: Iterable[Job], records: Iterable[Record]) -> list[Job]:
    """The jobs that no record answers; one for a run that two experiments share.

    >>> len(missing(jobs(select(["notes"])), []))
    3
    """
    records = list(records)
    found: dict[tuple[Recipe, int, str | None], Job] = {}
    for job in wanted:
        if not any(map(job.answered_by, records)):
            found.setdefault((job.recipe, job.seed, job.arm.precision), job)
    return list(found.values())


@cache
def asked_for() -> frozenset[Recipe]:
    """The recipes of all runs.

    >>> get_recipe("notes") in asked_for(), get_recipe("smoke") in asked_for()
    (True, False)
    """
    return frozenset(job.recipe for job in jobs(EXPERIMENTS))


@cache
def compared_in_precision() -> frozenset[Recipe]:
    """The recipes that are run in several precisions on purpose.

    >>> get_recipe("notes") in compared_in_precision()
    False
    """
    return frozenset(job.recipe for job in jobs(EXPERIMENTS) if job.arm.precision)
