"""The networks, one file each.

Importing this package loads no PyTorch, which takes a second and 140 MB: what only reads graphs, a supervisor too, does
without; `load` and the networks themselves need it.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "weights"  # the model files that come with Limpid

FAMILY = "f-edsr"
"""Name of the shipped model of whatever scale is asked for."""


def model_path(name: str, scale: int = 2) -> Path:
    """Return the file of a model: a shipped one by its name (a family's: that of the scale), else the path `name`."""
    family = SHIPPED / f"{name}-x{scale}.safetensors"
    shipped = family if Path(name).name == name and family.is_file() else SHIPPED / f"{name}.safetensors"
    return shipped if Path(name).name == name and shipped.is_file() else Path(name)
