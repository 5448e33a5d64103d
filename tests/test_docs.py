"""Every Python block on a page is a section of the package, or runs and prints what it says.

``make docs-update`` rewrites the printed lines (``#> …``) after a deliberate change. No other
code, no picture and no measured number is on a page; commands are ones that the project has.
"""

import argparse
import ast
import html
import io
import json
import re
import shlex
import textwrap
import tokenize
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal
from pathlib import Path
from typing import Any

import markdown
import pytest
from comparisons import CITED, DEPTHS
from pytest_examples import CodeExample, EvalExample, find_examples

from cifar_resnet import cli
from cifar_resnet.analysis import ANALYSES
from cifar_resnet.commands import _changes
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import select
from cifar_resnet.networks import NETWORKS
from cifar_resnet.queue import parse_budget
from cifar_resnet.recipe import RECIPES, get_recipe
from tests import ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.zh-CN.md"]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
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


def cells(notebook: Path, kind: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"].startswith(kind)]


def as_text(page: Path) -> str:
    """A page as Markdown; of a notebook, the code of its cells and what describes its figures."""
    if page.suffix != ".ipynb":
        return page.read_text()
    blocks = []
    for cell in cells(page):
        source = "".join(cell["source"])
        blocks.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        blocks.append(cell["metadata"].get("alt", ""))
    return "\n\n".join(blocks)


FENCE = re.compile(r"^ *```(python|bash|sh|mermaid)$", re.MULTILINE)


def unknown_code(text: str) -> int:
    """How many blocks of code Markdown finds beyond those that are run, checked or drawn.

    Be they in another language or spelling, in a quotation, or merely indented.
    """
    extensions = ["admonition", "def_list", "md_in_html", "tables"]
    extensions += [f"pymdownx.{name}" for name in ("details", "superfences", "tabbed")]
    shown = markdown.markdown(text, extensions=extensions).count("<pre")
    return shown - len(FENCE.findall(text)) + len(re.findall("`(?:#!|:::)|<pre", text))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: p.name)
def test_no_python_block_escapes(page: Path) -> None:
    text = as_text(page)
    assert unknown_code(text) == 0
    notebook = page.suffix == ".ipynb"
    run = cells(page, "code") if notebook else [e for e in EXAMPLES if e.path == page]
    assert FENCE.findall(text).count("python") == len(run)


@pytest.mark.parametrize(
    "block",
    [
        *("> ```python\n> 1 / 0\n> ```", "```ipython3\n1 / 0\n```", "```py\n1 / 0\n```"),
        *("``` {#a .python}\n1 / 0\n```", "````python\n1 / 0\n````", "~~~python\n1 / 0\n~~~"),
        *("    1 / 0", "- 一项\n\n        1 / 0", "<pre>1 / 0</pre>", "用 `#!python 1 / 0` 算。"),
    ],
)
def test_a_block_that_nobody_runs_is_found(block: str) -> None:
    known = "正文。\n\n```python\nprint(1)\n#> 1\n```\n\n"
    assert unknown_code(known) == 0
    assert unknown_code(known + block) > 0


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: p.name)
def test_snippets_stand_only_where_they_are_checked(page: Path) -> None:
    checked = [
        line.strip()
        for example in EXAMPLES
        if example.path == page and is_snippet(example)
        for line in example.source.splitlines()
    ]
    assert [line.strip() for line in as_text(page).splitlines() if "-8<-" in line] == checked


PICTURE = re.compile(
    r"!\[|<(?:img|svg|picture|figure|object|embed|iframe|canvas|video)\b|data:image", re.IGNORECASE
)


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: p.name)
def test_no_figure_is_made_by_hand(page: Path) -> None:
    """Figures are drawn from records, or by the cells and the diagrams of a page."""
    assert PICTURE.findall(as_text(page)) == []


def test_no_file_is_a_picture() -> None:
    kinds = {*(".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".bmp", ".svg", ".pdf")}
    assert [path for path in (ROOT / "docs").rglob("*") if path.suffix.lower() in kinds] == []


FIGURE = re.compile(
    r"""
    (?<![A-Za-z\d.]) \d+(?:\.\d+)? [*`$]* \s*
      (?:\\?%|％|percent|个百?分?点|毫秒|秒|分钟|小时|张/秒|k?\s*(?:img|images)/s|±|\\pm
        |(?:seconds?|minutes?|hours?|min|ms|h|s)(?![A-Za-z]))
    |[一二三四五六七八九十两百半几]+ (?:成[一二三四五六七八九半，。；、]|秒|分钟|个?小时)
    |超过[一二三四五六七八九]成|[百千]分之[一二三四五六七八九十零]+|[一两]个数量级
    |[判认只][对错]\D{0,2}[\d,]{3,}\s*张|[一二三四五六七八九十两]+个百分点
    |\d\.\d+ \$? \s* (?:倍|[x×](?!\d))|快[^，。；\d]{0,6}\d+\s*倍
    |(?<![\d.]) 9\d\.\d
    |准确率[^，。\d]{0,8}(?:0\.\d|9\d(?![\d%.]))
    |(?:损失|误差|错误率|准确率|正确率|ECE|accuracy|error|loss) [^，。；|\d]{0,10} \d+\.\d{2}
    |0\.\d{2,}[^，。；|\d]{0,4}(?:准确率|错误率|正确率|accuracy)
    |每秒[^，。；]{0,6}?\d+
    """,
    re.VERBOSE,
)
# Not measured: a limit that is set, a goal, what a formula comes to, a sample of input.
GIVEN = re.compile(
    r"(?:--budget |BUDGET=)\S+|a time such as 90s, 9m or 1\.5h"
    r"|\d+ % on (?:two CPU cores|a GPU) in \w+ \w+|小于 0\.1 倍算作|超过完整网络的八成，才算"
    r"|[一二两半]个?(?:小时|分钟)为目标|made for [a-zA-Z\s]*\d+ minutes"
    r"|\$[^$\n]*(?:\\sqrt|\\t?frac|\\ln|/)[^$\n]*\\approx ?[\d.]+\$"
    r'|``".*?"``'
)
PYTHON = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
# Ends of sentences, lines, items of lists.
END = re.compile(r"(?<=[。！？；])|(?<=[.!?;])\s|\n(?= *(?:[-*#]|\d+\.) )")
SAID = {tokenize.COMMENT, tokenize.STRING, tokenize.NUMBER}
SAID |= {getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}  # since Python 3.12


def sentences(block: str) -> list[str]:
    return [sentence for sentence in END.split(GIVEN.sub("", block)) if sentence.strip()]


def figures(text: str) -> list[tuple[str, list[str]]]:
    """Accuracies, errors, times and speeds, each with the keys of the works it is cited from.

    In prose, drawings and commands, and in what Python blocks say beside their checked output.
    A figure is cited by a link to the references in its own sentence; a table by one in the
    sentence before it or after it.
    """
    found: list[tuple[str, list[str]]] = []
    for _, source in PYTHON.findall(text):
        written = re.sub(r":[\d.,]*%\}", "}", textwrap.dedent(source))  # formats of f-strings
        for token in tokenize.generate_tokens(io.StringIO(written).readline):
            if token.type in SAID and not token.string.startswith("#>"):
                found += [(figure, []) for figure in FIGURE.findall(token.string)]
    blocks = [sentences(block) for block in re.split(r"\n\s*\n", PYTHON.sub("", text))]
    for before, block, after in zip([[], *blocks], blocks, [*blocks[1:], []], strict=False):
        table = "".join(block).lstrip().startswith("|")
        near = [*before[-1:], *after[:1]] if table else []
        for sentence in block:
            works = re.findall(r"references\.md#(\w+)", "".join([sentence, *near]))
            found += [(figure, works) for figure in FIGURE.findall(html.unescape(sentence))]
    return found


def typed_figures(text: str) -> list[str]:
    return [figure for figure, works in figures(text) if not works]


def number(figure: str) -> Decimal | None:
    """None of one in words, and of one with commas."""
    found = re.findall(r"\d+(?:\.\d+)?", figure)
    return Decimal(found[0]) if len(found) == 1 else None


# The titles of papers hold figures, too.
OWN = [page for page in [*PAGES, *NOTEBOOKS] if page.name != "references.md"]


@pytest.mark.parametrize("page", OWN, ids=lambda p: p.name)
def test_measured_numbers_are_not_typed(page: Path) -> None:
    assert typed_figures(as_text(page)) == []


@pytest.mark.parametrize("page", OWN, ids=lambda p: p.name)
def test_accuracies_are_those_of_the_recipe_before_them(page: Path) -> None:
    """`notes` beside what another recipe reached would be a lie that no number betrays."""
    text = as_text(page)
    for macro in re.finditer(r'\{\{ accuracy\("([\w-]+)"\) \}\}', text):
        named = re.findall(rf"`({'|'.join(RECIPES)})`", text[: macro.start()])
        assert named[-1:] == [macro[1]]


def strings(module: Path) -> Iterator[str]:
    """What it says: docstrings less their examples, help, errors, text for the pages."""
    tree = ast.parse(module.read_text())
    formats = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue) and node.format_spec
        for part in ast.walk(node.format_spec)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in formats:
            yield re.sub(r">>>.*?(?:\n\n|$)", "", node.value, flags=re.DOTALL)


@pytest.mark.parametrize("folder", ["cifar_resnet", "hooks"])
def test_nor_into_what_the_code_says(folder: str) -> None:
    """Except for what the recipes reached, which test_recipe.py holds against the records."""
    reached = re.compile(r"Reached [\d.]+ % on the test images")
    said = [
        reached.sub("", text) if module.name == "recipe.py" else text
        for module in (ROOT / folder).glob("*.py")
        for text in strings(module)
    ]
    assert set(typed_figures("\n\n".join(said))) == set(CITED.values() if folder == "hooks" else ())


def test_nor_into_the_rest_of_the_site() -> None:
    scripts = (ROOT / "docs" / "assets").rglob("*.js")
    for path in (ROOT / "mkdocs.yml", *scripts, *(ROOT / "overrides").rglob("*.html")):
        assert FIGURE.findall(path.read_text()) == [], path


def test_a_typed_number_is_found() -> None:
    cited = "见 [He 等，2015](references.md#he2015)：\n\n| 56 层 | 6.97% |\n| -- | -- |"
    assert typed_figures(cited) == []
    assert typed_figures(f"{cited}\n\n我们得到 95.3%，用了 70 分钟。") == ["95.3%", "70 分钟"]
    assert typed_figures('准确率是 {{ accuracy("notes") }}。') == []
    assert typed_figures("```python\nx = 5 % 3\n```\n\n```text\n准确率 95.5%\n```") == ["95.5%"]


@pytest.mark.parametrize(
    "words",
    [
        *("准确率是 0.955", "0.955 的准确率", "错误率 0.045", "测试损失 0.213", "ECE 是 0.021"),
        *("92.4  %", r"$95.5\%$", "95.5 percent", "95.5±0.1", r"$4.2\pm 0.1$", "约95.5"),
        *("20 个百分点", "两个百分点", "3.2 个点", "九成五，", "百分之九十五"),
        *("超过九成的图", "千分之四十", "**97**%", "准确率达到 96 以上", "96&#46;1&#37;"),
        *("快一个数量级", "判对 9,688 张", "只错 312 张"),
        *("70 min", "1.5 h", "3 ms", "70 minutes", "$70$ 分钟", "先花一两分钟", "半个小时"),
        *("每秒 218 张", "每秒训练 3120 张", "3.1k img/s"),
        *("快 4.2 倍", "12.9 倍", "快了 4 倍", "4.2x"),
    ],
)
def test_a_number_is_found_however_it_is_written(words: str) -> None:
    assert len(typed_figures(words)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[他们](references.md#he2015)得到 6.97%。我们得到 4.4%。",
        "- [他们](references.md#he2015)得到 6.97%\n- 我们得到 4.4%",
        "[他们](references.md#he2015)也量过。我们的：\n\n| 误差 |\n| -- |\n| 4.4% |",
        *("```bash\nmake serve  # 70 min\n```", "```yaml\na: 1  # 95.5%\n```"),
        '```mermaid\ngraph TD\n    A["准确率 95.5%"]\n```',
        *('```python\nprint("95.5%")\n```', "```python\n#> 95.5%\nx = 1  # 96.4%\n```"),
        '??? note "x"\n\n    ```python\n    x = 95.5\n    ```',
    ],
)
def test_a_number_is_found_wherever_it_stands(text: str) -> None:
    assert len(typed_figures(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("`cifar-resnet experiments run --budget 2h`", "20 层，3×3，MD5s", "以一小时为目标"),
        r"$1/\sqrt{1-\mu^2}\approx2.29$ 倍",
        '```python\nprint(f"{x:6.1%} of {y}")\n#> 95.5% of 3\n```',
    ],
)
def test_other_numbers_may_be_typed(text: str) -> None:
    assert typed_figures(text) == []


def test_figures_from_the_paper_are_those_of_its_table() -> None:
    """What the experiments show beside their own results stands on the page of the background."""
    rows = re.findall(
        r"^\| (ResNet-\d+) \|.*\| (\S+) \|$", (ROOT / "docs" / "background.md").read_text(), re.M
    )
    assert {(DEPTHS[network], error) for network, error in CITED.items()} < set(rows)


@pytest.mark.parametrize("page", OWN, ids=lambda p: p.name)
def test_figures_are_quoted_as_the_page_of_references_lists_them(page: Path) -> None:
    """An accuracy of 95.28 % is quoted as an error of 4.72 %."""
    entries = re.findall(
        r"^### .* \{#(\w+)\}$(?:\n(?!#).*)*?\n引用的数字：(.*)",
        (ROOT / "docs" / "references.md").read_text(),
        re.MULTILINE,
    )
    listed = {key: set(map(number, FIGURE.findall(line))) for key, line in entries}
    for figure, works in figures(as_text(page)):
        quoted = number(figure)
        known = set().union(*(listed.get(work, set()) for work in works))
        assert not works or (quoted and {quoted, 100 - quoted} & known), figure


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


def test_works_are_cited_by_their_authors_and_years() -> None:
    page = (ROOT / "docs" / "references.md").read_text()
    titles = {}
    for title, key, authors in re.findall(
        r"^### (.*) \{#(\w+)\}\n\n(.*?)\. \*", page, re.MULTILINE
    ):
        titles[key] = title
        names, _, year = title.rpartition("，")
        assert year[:4] in key, title
        assert all(name in authors for name in re.split(" 与 | 等", names)), title
    for source in [*PAGES, *NOTEBOOKS]:
        for words, key in re.findall(r"\[([^]]+)\]\([./]*references\.md#(\w+)\)", as_text(source)):
            if re.search(r"\d{4}", words):
                assert words.replace("（", "，").rstrip("）") == titles[key], source.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_run_on_colab_and_describe_their_pictures(path: Path) -> None:
    code = cells(path, "code")
    first, *rest = ("".join(cell["source"]) for cell in code)
    repository = re.search(r"^repo_url: (\S+)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert repository
    assert f"%pip install -q git+{repository[1]}" in first
    assert code[0]["metadata"]["tags"] == ["colab"], "which hides it on the page"
    drawing = [cell for cell, source in zip(code[1:], rest, strict=True) if "plt.sh" in source]
    assert drawing
    assert all(len(cell["metadata"]["alt"]) > 20 for cell in drawing)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_store_no_output(path: Path) -> None:
    """What a reader sees was computed when the site was built."""
    code = cells(path, "code")
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


SHELL = re.compile(r"^( *)```(?:bash|sh)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:cifar-resnet|make) [^`\n]+)`")
TEXTS = [*PAGES, *NOTEBOOKS, *sorted(ROOT.glob("CONTRIBUTING*.md"))]


def complaint(program: str, *words: str) -> str:
    """What the command line, or make, says of such a call, without doing it."""
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        return " ".join(word for word in words if not _in_makefile(word, makefile))
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        try:
            _look_up(cli._parser().parse_args(words))
        except SystemExit as stop:  # --help is no mistake
            return said.getvalue() if stop.code else ""
        except InputError as error:
            return str(error)
    return ""


def _in_makefile(word: str, makefile: str) -> bool:
    """Whether it is a target, or sets one of the variables or of pip's."""
    name, equals, _ = word.partition("=")
    start = rf"^{re.escape(name)}{' [:?]?=' if equals else ':'}"
    return name.startswith("PIP_") or bool(re.search(start, makefile, re.MULTILINE))


def _look_up(args: argparse.Namespace) -> None:
    """Fail for an unknown recipe, experiment, network or analysis."""
    if "recipe" in args and not args.recipe.endswith("record.json"):
        get_recipe(args.recipe, **_changes(args.set))
    if "names" in args:
        select([name for name in args.names if name != "NAME"], args.device)
    if "budget" in args and args.budget:
        parse_budget(args.budget)
    if "network" in args and args.network not in NETWORKS:
        raise InputError(f"network {args.network!r} is unknown")
    if "name" in args and args.name not in ANALYSES:
        raise InputError(f"analysis {args.name!r} is unknown")


def calls(lines: str) -> Iterator[list[str]]:
    """The calls of the command line, however it is started, and of make."""
    for line in re.sub(r"(?:^|\s)#.*", "", lines.replace("\\\n", " "), flags=re.M).splitlines():
        for command in re.split(r"&&|[|;]", line):
            words = shlex.split(command)
            if "cifar_resnet" in words:
                words = ["cifar-resnet", *words[words.index("cifar_resnet") + 1 :]]
            if words and words[0] in ("cifar-resnet", "make"):
                yield words


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.name)
def test_commands_are_ones_that_there_are(page: Path) -> None:
    """In prose, one may lack the arguments it needs."""
    text = as_text(page)
    for _, block in SHELL.findall(text):
        for call in calls(block):
            assert complaint(*call) == "", shlex.join(call)
    for command in INLINE.findall(text):
        for call in calls(command):
            said = complaint(*call)
            assert not said or "arguments are required" in said, command


@pytest.mark.parametrize(
    "line",
    [
        *("cifar-resnet train note", "cifar-resnet train notes --seeds 0", "cifar-resnet report"),
        *("cifar-resnet train notes --set momentun=0", "torchrun -m cifar_resnet train nodes"),
        *("cifar-resnet experiments run surgery --device cpu", "cifar-resnet analyze lesions"),
        *(
            "cifar-resnet bench \\\n  --network resnet19",
            "cd x && make tests",
            "make serve BUGDET=1h",
        ),
    ],
)
def test_a_command_that_there_is_not_is_found(line: str) -> None:
    (call,) = calls(line)
    assert complaint(*call)
