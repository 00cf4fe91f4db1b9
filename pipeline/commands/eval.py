"""`limpid eval TASK`: quality tables with the field's own metrics, peers beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.commands import eval_sr
from pipeline.errors import ConfigError

TASKS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "sr": (eval_sr.main, "super-resolution: PSNR and SSIM of luma, clip by clip, beside bicubic, Lanczos and peers"),
}


def main(argv: Sequence[str]) -> int:
    """Run the evaluation that `argv` names; return the exit code.

    Raises:
        ConfigError: there is no such task.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: limpid eval TASK …\n\n" + "\n".join(f"  {name}  {does}" for name, (_, does) in TASKS.items()))
        return 0 if argv else 2
    task, *rest = argv
    if task not in TASKS:
        raise ConfigError(f"no evaluation '{task}'", where="eval", hint=f"known are {', '.join(TASKS)}")
    return TASKS[task][0](rest)
