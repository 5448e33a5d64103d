"""The package as a whole: what it exports, what imports what, how quickly."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cifar_resnet
from tests import ROOT
from tests.mutate import MUTATIONS, Mutation, find

PACKAGE = Path(cifar_resnet.__file__).parent


@pytest.mark.parametrize("name", cifar_resnet.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(cifar_resnet, name) is not None
    assert name in dir(cifar_resnet)


def test_public_names_are_listed_alike_for_people_and_type_checkers() -> None:
    assert [*cifar_resnet._WHERE, "__version__"] == cifar_resnet.__all__
    lines = (PACKAGE / "__init__.py").read_text()
    for name, module in cifar_resnet._WHERE.items():
        assert re.search(rf"^    from cifar_resnet\.{module} import .*\b{name}\b", lines, re.M)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = cifar_resnet.nothing


def test_a_module_is_there_without_being_imported() -> None:
    code = "import cifar_resnet; cifar_resnet.networks.NETWORKS; cifar_resnet.evaluate.__call__"
    subprocess.run([sys.executable, "-c", code], check=True)


def imports(path: Path) -> set[str]:
    """Names of the package's modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "cifar_resnet":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cifar_resnet."):
            found.add((node.module or "").split(".")[1])
    return found


def test_modules_import_in_one_direction() -> None:
    graph = {p.stem: imports(p) for p in PACKAGE.glob("*.py") if p.stem != "__init__"}
    done: set[str] = set()
    while ready := {name for name, needs in graph.items() if needs <= done} - done:
        done |= ready
    assert set(graph) - done == set(), "modules in an import circle"


def test_every_module_is_in_the_reference_but_those_of_the_command_line() -> None:
    pages = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "api").glob("*.md"))
    shown = re.findall(r"^::: cifar_resnet\.(\w+)$", pages, re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert {p.stem for p in PACKAGE.glob("*.py")} - set(shown) == {
        "__init__",
        "__main__",
        "audit",
        "cli",
        "commands",
        "evidence_commands",
        "parse",
    }


def test_the_reference_tells_on_which_page_a_module_is() -> None:
    overview = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    told = {
        page: re.findall(r"`(\w+)`", modules)
        for page, modules in re.findall(
            r"^\| \[[^]]+\]\((api/.*?)\) \|.*\| (.*) \|$", overview, re.M
        )
    }
    pages = {f"api/{path.name}": path for path in (ROOT / "docs" / "api").glob("*.md")}
    there = {
        name: re.findall(r"^::: cifar_resnet\.(\w+)$", path.read_text(encoding="utf-8"), re.M)
        for name, path in pages.items()
    }
    assert told == there


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| \[`(\w+)`\]\[([\w.]+)\]", page, re.MULTILINE))
    public = {name: getattr(cifar_resnet, name) for name in cifar_resnet.__all__}
    assert list(listed) == [name for name in public if name != "__version__"]
    for name, path in listed.items():
        module, _, last = path.rpartition(".")
        assert getattr(import_module(module), last) is public[name]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_mutations_can_still_be_made(mutation: Mutation) -> None:
    """`make mutate` tries them; here only that none has gone stale."""
    assert mutation.old in find(mutation, ROOT).read_text(encoding="utf-8")
