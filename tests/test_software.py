import pytest

from cifar_resnet.software import commit_of, git, source_at
from tests import ROOT


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git's history")
def test_the_commit_of_a_source_is_found() -> None:
    """The last that made the package what it is."""
    commit = (git("log", "-n", "1", "--format=%H", "--", "cifar_resnet/*.py") or b"").decode()
    source = source_at(commit.strip())
    assert source is not None
    assert commit_of(source) == commit.strip()
