"""What an experiment or an analysis found about a claim."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One comparison in words, and whether it speaks for the claim; None if it is open."""

    words: str
    holds: bool | None


@dataclass(frozen=True)
class Shown:
    """What an experiment or an analysis gives: findings, a chart, how it was run."""

    findings: Sequence[Finding]
    chart: str
    conditions: str
