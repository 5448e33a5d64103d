"""MkDocs hook: what a page writes in double braces is filled in from records and code.

    {{ accuracy("notes-cpu") }}       test accuracy of a recipe's runs, or 待训练
    {{ headline() }}                  the results so far, one card a recipe; or of named ones
    {{ evidence("degradation") }}     a claim with what was measured and the verdict
    {{ claims() }}                    all claims in a table
    {{ tally() }}                     how many of them hold
    {{ figure("lr_schedule") }}       also momentum, weight_decay, label_smoothing, augmentations
    {{ layer_table() }}               the two networks, layer by layer

and, on the results page, ``{{ learning_curves() }}``, ``confusion_matrix``, ``per_class``,
``calibration``, ``confusions``, ``tuning``, ``provenance``, ``compared`` and
``{{ best_epoch("notes") }}``; on pages of their own, ``{{ speed() }}``, ``goals``,
``contention``, ``fast``, ``pace``, ``{{ parts("fast-parts") }}`` and ``{{ classifier() }}``.
Arguments are Python literals. An unknown name or a wrong argument fails the build.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import records
import results_page
import torch
from classifier import classifier
from comparisons import parts
from evidence import claims, evidence, tally
from figures import figure
from layers import layer_table
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pace import fast, pace
from records import RECORDS, Results, find_outdated, read_results
from speed import contention, goals, speed
from wording import PENDING, percent

_CALL = re.compile(r"\{\{ *(\w+)\(([^{}\n]*)\) *\}\}")
_results = Results()
_serving = False


def accuracy(results: Results, recipe: str) -> str:
    """Mean test accuracy of a recipe's runs; never a number while there is none."""
    group = results.published(recipe)
    if group is None:
        return PENDING
    written = percent(*group.spread(records.accuracy))
    return f"<span>{written}</span>{results.mark(group.ids)}"


# What a page may call: on results, and on the code alone.
ON_RESULTS: dict[str, Callable[..., str]] = {"accuracy": accuracy} | {
    function.__name__: function
    for function in (
        evidence,
        claims,
        tally,
        results_page.headline,
        results_page.learning_curves,
        results_page.confusion_matrix,
        results_page.per_class,
        results_page.calibration,
        results_page.confusions,
        results_page.best_epoch,
        results_page.tuning,
        results_page.provenance,
        results_page.compared,
        speed,
        goals,
        contention,
        fast,
        pace,
        parts,
        classifier,
    )
}
ON_CODE: dict[str, Callable[..., str]] = {"figure": figure, "layer_table": layer_table}


def on_startup(command: str, dirty: bool) -> None:
    """One thread for the build; and remember whether somebody is writing, with ``make serve``."""
    global _serving
    torch.set_num_threads(1)  # little to compute; a second thread on a busy core holds it up
    _serving = command == "serve"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Read the records, and put a copy of each into the site."""
    global _results
    top = Path(config.config_file_path).parent
    folder = top / "results"
    _results = read_results(folder)
    if _serving:
        _results = replace(_results, outdated=find_outdated(_results, top / ".cache"))
    for path in sorted(folder.glob("*/*.json")):
        name = f"{RECORDS}/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the macros of one page."""
    if page.file.src_uri.endswith(".ipynb"):
        return markdown
    try:
        return expand(markdown, _results)
    except PluginError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def expand(markdown: str, results: Results) -> str:
    """Replace every call by its result."""

    def value(call: re.Match[str]) -> str:
        name, written = call.groups()
        try:
            arguments = ast.literal_eval(f"({written},)" if written else "()")
            if name in ON_CODE:
                return ON_CODE[name](*arguments)
            return ON_RESULTS[name](results, *arguments)
        except (KeyError, SyntaxError, TypeError, ValueError) as error:
            raise PluginError(f"{call[0]}: {type(error).__name__}: {error}") from error

    return _CALL.sub(value, markdown)
