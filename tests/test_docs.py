"""Every Python block on a page is a section of the package, or runs and prints what it says.

``make docs-update`` rewrites the printed lines (``#> …``) after a deliberate change.
"""

import re
from pathlib import Path

import pytest
from pytest_examples import CodeExample, EvalExample, find_examples

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.zh-CN.md"]
SNIPPET = re.compile(r'\s*--8<-- "(?P<file>[^":]+):(?P<section>\w+)"')
EXAMPLES = list(find_examples(*PAGES))


def is_snippet(example: CodeExample) -> bool:
    return all(SNIPPET.fullmatch(line) for line in example.source.splitlines())


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
        assert found
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
