"""The networks, one file each.

Importing this package loads no PyTorch, which takes a second and 140 MB: what only reads graphs, a supervisor too, does
without; `load` and the networks themselves need it.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "weights"  # the model files that come with Limpid
