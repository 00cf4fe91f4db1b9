"""What FFmpeg's libraries could hand to a GPU's codec units, if there is one."""

from __future__ import annotations

import av

_WANTED = ("h264_cuvid", "hevc_cuvid", "h264_nvenc", "hevc_nvenc")


def hardware_codecs() -> tuple[str, ...]:
    """Return FFmpeg's names of the NVDEC decoders and NVENC encoders that are built in; the GPU may still lack them."""
    return tuple(name for name in _WANTED if name in av.codecs_available)
