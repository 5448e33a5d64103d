"""The project's tests."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
