"""Every Python block on a page is a section of the package, or runs and prints what it says.

``make docs-update`` rewrites the printed lines (``#> …``) after a deliberate change.
"""

import json
import re
from pathlib import Path

import pytest
from pytest_examples import CodeExample, EvalExample, find_examples

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.zh-CN.md"]
SNIPPET = re.compile(r'\s*--8<-- "(?P<file>[^":]+):(?P<section>\w+)"')
EXAMPLES = list(find_examples(*PAGES))


def is_snippet(example: CodeExample) -> bool:
    return "--8<--" in example.source


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not is_snippet(e)], ids=str)
def test_examples_print_what_the_page_says(
    example: CodeExample, eval_example: EvalExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    run = eval_example.run_print_check
    if eval_example.update_examples:
        run = eval_example.run_print_update
    problem = None
    try:
        run(example)
    except (Exception, pytest.fail.Exception) as error:
        # Its doctored traceback crashes pytest's report on Python 3.11: keep the words alone.
        problem = f"{type(error).__name__}: {error}"
    if problem:
        pytest.fail(problem, pytrace=False)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if is_snippet(e)], ids=str)
def test_snippets_name_sections_of_the_package(example: CodeExample) -> None:
    for line in example.source.splitlines():
        found = SNIPPET.fullmatch(line)
        assert found, "code beside a snippet would neither be checked nor run"
        assert found["file"].startswith("cifar_resnet/"), "the package's own code, which is tested"
        source = (ROOT / found["file"]).read_text()
        for edge in ("start", "end"):
            assert source.count(f"# --8<-- [{edge}:{found['section']}]") == 1


def test_no_python_block_escapes() -> None:
    """Blocks that the finder does not see, such as ``py`` or tilde fences, would go unchecked."""
    fences = sum(
        len(re.findall(r"^\s*(?:`{3,}|~{3,})\s*\{?\s*\.?(?:py|python|python3|pycon)\b", text, re.M))
        for text in (page.read_text() for page in PAGES)
    )
    assert fences == len(EXAMPLES) > 10


FIGURE = re.compile(
    r"\d+(?:\.\d+)?\s*"
    r"(?:\\?%|％|个百分点|毫秒|秒|分钟|小时|张/秒|(?:img|images)/s|(?:min|ms|h|s)\b)"
    r"|[一二三四五六七八九十两百半几]+(?:成[一二三四五六七八九半，。；、]|秒|分钟|个?小时)"
    r"|每秒 ?\d+|准确率[^，。\d]{0,8}0\.\d+"
)
# What is run or drawn; a block of anything else is words like any others.
CODE = re.compile(
    r"^( *)```(?:python|bash|sh|yaml|toml|mermaid)\b.*?^\1``` *$", re.DOTALL | re.MULTILINE
)


def typed_figures(markdown: str) -> list[str]:
    """Accuracies, errors, times and speeds without a citation.

    A figure is cited by a link to the references in its own paragraph; a table also by one in
    the paragraph before it or after it.
    """
    blocks = re.split(r"\n\s*\n", CODE.sub("", markdown))
    found = []
    for index, block in enumerate(blocks):
        table = block.lstrip().startswith("|")
        near = blocks[max(0, index - 1) : index + 2] if table else [block]
        if not any("references.md#" in words for words in near):
            found += FIGURE.findall(block)
    return found


# The titles of papers hold figures, too.
OWN = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "references.md"]

OWN += [ROOT / "README.md", ROOT / "README.zh-CN.md", *(ROOT / "docs").rglob("*.ipynb")]


@pytest.mark.parametrize("page", OWN, ids=lambda p: p.name)
def test_measured_numbers_are_not_typed(page: Path) -> None:
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    assert typed_figures(text) == []


def test_a_typed_number_is_found() -> None:
    cited = "见 [He 等，2015](references.md#he2015)：\n\n| 56 层 | 6.97% |\n| -- | -- |"
    assert typed_figures(cited) == []
    assert typed_figures(f"{cited}\n\n我们得到 95.3%，用了 70 分钟。") == ["95.3%", "70 分钟"]
    assert typed_figures('准确率是 {{ accuracy("notes") }}。') == []
    assert typed_figures("```python\nx = 5 % 3\n```\n\n```text\n准确率 95.5%\n```") == ["95.5%"]


@pytest.mark.parametrize(
    "words",
    [
        *("准确率是 0.955", "九成五，", "每秒 218 张", "70 min", "1.5 h", r"$95.5\%$", "92.4  %"),
        *("先花一两分钟", "3 ms", "20 个百分点", "半个小时"),
    ],
)
def test_a_number_is_found_however_it_is_written(words: str) -> None:
    assert len(typed_figures(words)) == 1


def test_the_page_of_references_and_its_bibtex_file_agree() -> None:
    """Same works, same titles, authors and years; and each is cited somewhere."""
    page = (ROOT / "docs" / "references.md").read_text()
    shown = {
        key: (title.rstrip("."), authors)
        for key, authors, title in re.findall(
            r"^### .* \{#(\w+)\}\n\n(.*?)\. \*(.*?)\*", page, re.MULTILINE
        )
    }
    bibtex = (ROOT / "docs" / "references.bib").read_text()
    for latex, letter in (('{\\"u}', "ü"), ("{\\'a}", "á"), ("{\\L}", "Ł")):
        bibtex = bibtex.replace(latex, letter)
    filed = {
        key: (title, authors.replace(" and ", ", "))
        for key, authors, title in re.findall(
            r"@\w+\{(\w+),\n  author = \{(.*)\},\n  title = \{\{(.*)\}\}", bibtex
        )
    }
    assert shown == filed
    cited = {
        key
        for source in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
        for key in re.findall(r"references\.md#(\w+)", source.read_text())
    }
    assert cited - set(shown) == set()
    assert set(shown) - cited == set()


NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_run_on_colab_and_describe_their_pictures(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    first, *rest = ("".join(cell["source"]) for cell in cells)
    repository = re.search(r"^repo_url: (\S+)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert repository
    assert f"%pip install -q git+{repository[1]}" in first
    assert cells[0]["metadata"]["tags"] == ["colab"], "which hides it on the page"
    drawing = [cell for cell, source in zip(cells[1:], rest, strict=True) if "plt.sh" in source]
    assert drawing
    assert all(len(cell["metadata"]["alt"]) > 20 for cell in drawing)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_store_no_output(path: Path) -> None:
    """What a reader sees was computed when the site was built."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
