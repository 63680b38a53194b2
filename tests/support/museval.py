"""museval, the reference for BSS Eval, without musdb: its import of that insists on an FFmpeg of the system's."""

import sys
from types import ModuleType

sys.modules.setdefault("musdb", ModuleType("musdb"))

import museval  # type: ignore[import-untyped] # noqa: E402
from museval import metrics  # noqa: E402

__all__ = ["metrics", "museval"]
