"""The right to make namespaces, for the tests here that load what targets emit."""

from __future__ import annotations

from tests.kernel.conftest import kernel

__all__ = ["kernel"]
