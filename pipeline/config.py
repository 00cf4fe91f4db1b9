"""Settings: the complete configuration of one job, from a YAML file, the environment and the command line.

Precedence, lowest first: the defaults here, the YAML file, `LIMPID_…` variables, what the command line says. A
variable's name is the setting's path with "__" between its parts: LIMPID_ENHANCE__SCALE=2 sets enhance.scale.
Whatever is wrong is reported at once, in one ConfigError; an unknown key names the nearest known one.

pydantic-settings would read the same places, but it ignores a misspelt variable, and its errors do not say where a
value came from.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.errors import ConfigError

ENV_PREFIX = "LIMPID_"

NOT_SETTINGS = frozenset({"LIMPID_SERVER", "LIMPID_TOKEN"})
"""Variables that clients of the service read; no settings of a job."""


class Section(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SlateText = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[\x20-\x7e]+$")]


class SourceSettings(Section):
    """How a source is opened and how much it may ask for."""

    open_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    """Seconds, (0, 600]: to connect and to find the tracks. Raise it for slow servers."""
    read_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    """Seconds, (0, 600]: without a byte until the source counts as lost."""
    allow_private: bool = True
    """Whether URLs may lead to private and loopback addresses. The service turns it off: others give it addresses."""
    local: bool = True
    """Whether files of this machine may be read. The service turns it off."""
    networks: tuple[str, ...] = ()
    """Networks (192.168.7.0/24, fd00::/8) that URLs may lead to although they are private or loopback."""
    ca_file: str = ""
    """Path of certificates in PEM form, of a private authority or of a camera itself, that https, rtmps and rtsps trust
    beside the system's; on each machine that reads sources. "": none."""
    mode: Literal["auto", "live", "file"] = "auto"
    """live: it passes whether it is read or not, and is opened again when it ends; file: it waits, and its end is the
    stream's. auto: rtmp, rtsp, udp, tcp and playlists without an end are live, all else is a file."""
    reconnect_initial_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds, (0, 60]: before a live source that has gone is tried again; twice as long each time, with jitter."""
    reconnect_max_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds, (0, 3600]: between two tries at most."""
    reconnect_attempts: Annotated[int, Field(ge=-1, le=1_000_000)] = -1
    """Tries in a row until the stream fails; -1: without end."""
    log_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Seconds, 1 to 600: packets of a live source that are kept in memory, to go on after a process has died."""
    slate_after_s: Annotated[float, Field(ge=0, le=600)] = 0.0
    """Seconds, 0 to 600, without a packet after which a card is shown until the live source is back; 0: never. Of
    HLS, which comes in bursts, three segments at least."""
    slate_text: SlateText = "No signal"
    """The line on that card: 1 to 80 characters, ASCII."""


class EnhanceSettings(Section):
    """The sharper picture."""

    enabled: bool = True
    """Off: the stream is encoded again at the source's size."""
    scale: Annotated[int, Field(ge=2, le=4)] = 2
    """Output size ÷ source size, 2 to 4."""
    model: str = "f-edsr"
    """A shipped model's name ("f-edsr": the one of the scale), a model file's path, or "bicubic" (no network: for
    comparison, or a weak machine)."""
    runtime: str = "auto"
    """What runs the network (openvino-int8, openvino-fp32, onnx, pytorch); "auto" measures at start-up, takes the
    fastest and writes it into the stream's stamps. Pin it to get the same bytes from two runs."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Threads of the network in each worker, 0 to 64; 0: as many as the worker has. Other counts may give other
    bytes."""


class RefineSettings(Section):
    """The frames that a second, dearer network refines by their neighbours."""

    budget: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the frames, 0 to 1; 0: none, and the stage is left out. One costs fifteen times what enhance does."""
    model: str = "tcsr"
    """A shipped model's name ("tcsr": the one of the scale; there is one for x2), or a model file's path."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Threads of that network where no stamp names them, 0 to 64; 0: as many as the worker has."""


class GuardSettings(Section):
    """What keeps the enhanced picture from being worse than the conventional one."""

    stability: Annotated[float, Field(ge=0, le=1)] = 0.9
    """0 to 1: blocks less stable than this go back to the conventional up-scale; 0 keeps all."""
    tolerance: Annotated[float, Field(ge=0, le=255)] = 1.5
    """Code values, 0 to 255: how much further from the source (root mean square) an enhanced block may lie."""
    detail: Annotated[float, Field(ge=0)] = 0.5
    """Energy that a block may have above the source's band, ÷ its variance."""
    frame_share: Annotated[float, Field(ge=0, le=1)] = 0.15
    """0 to 1: where more of a frame's blocks go back, all of them do."""
    frame_detail: Annotated[float, Field(ge=0)] = 0.07
    """Mean of that energy over a frame, above which all of it goes back."""


class AnalyseSettings(Section):
    """What is found out about the source's frames."""

    enabled: bool = True
    """Off: the tables hold the frames, not their quality."""


LIGHTER_PRESETS = ("superfast", "veryfast", "faster")
"""Of x264, those that the overload ladder can make lighter (media/encode.py): the others stay as they are."""


class EncodeSettings(Section):
    """The HLS output."""

    segment_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    """Seconds, (0, 30]: a segment's length. Shorter: quicker start, more bits."""
    crf: Annotated[float, Field(ge=0, le=51)] = 21.0
    """x264's quality, 0 (lossless) to 51 (worst); 6 more halve the bits."""
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = "superfast"
    """x264's effort: slower ones need fewer bits for the same picture."""
    max_kbps: Annotated[int, Field(ge=0, le=200_000)] = 16_000
    """kbit/s that a segment is capped at, 0 to 200000; 0: no cap."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of an encoder, 1 to 64. Other counts give other bytes; more than 1 need max_kbps 0."""
    keep_s: Annotated[float, Field(ge=0, le=31_536_000)] = 0.0
    """Seconds that the playlist reaches back, three segments at least; 0: to the start. What has left it is deleted."""
    live: bool = False
    """Write each frame for the live view as well, beside the segments. Needs a directory as store, not S3."""


class AudioSettings(Section):
    """The sound of the HLS output."""

    segment_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    """Seconds, (0, 30]: a segment's length; best as encode's."""
    keep_s: Annotated[float, Field(ge=0, le=31_536_000)] = 0.0
    """Seconds that the playlist reaches back, as encode's; 0: to the start."""


class OriginalSettings(Section):
    """The source's own picture beside the output, to compare with."""

    segment_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    """Seconds, (0, 30]: a segment's length; best as encode's."""
    crf: Annotated[float, Field(ge=0, le=51)] = 18.0
    """x264's quality, 0 (lossless) to 51 (worst): low, so that the encoder is not what one compares."""
    keep_s: Annotated[float, Field(ge=0, le=31_536_000)] = 0.0
    """Seconds that the playlist reaches back, as encode's; 0: to the start."""
    live: bool = False
    """Write each frame for the live view as well, as encode's."""


class RecordSettings(Section):
    """The tables."""

    part_frames: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Frames a Parquet part, 1 to 100000. Smaller: results can be read sooner, more files."""


class OutputSettings(Section):
    """What a stream's directory holds beside HLS and tables."""

    original: bool = False
    """The source's own picture as a rendition beside the output, to compare with."""
    packets: bool = False
    """Keep the source's packets, so that a stream that cannot be read again can be replayed."""


class LiveSettings(Section):
    """How live streams keep up."""

    max_lag_s: Annotated[float, Field(gt=0, le=600)] = 1.0
    """Seconds, (0, 600]: from a frame's arrival until it is in the output's file. Above it, work is made lighter."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """0 to 9: where cores are short, streams of low priority are made lighter first and go back last."""
    batch_frames: Annotated[int, Field(ge=1, le=8)] = 2
    """Frames that the stages of a live stream get at a time, 1 to 8: the fewer, the less lag and the more overhead."""


class ServiceSettings(Section):
    """The service (`limpid serve`)."""

    host: str = "127.0.0.1"
    """Address to listen on. Off loopback, tokens are needed."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on, 0 to 65535; 0: any free one."""
    store: str = "limpid-data"
    """Path or s3:// prefix: streams' directories, events, tokens, the list of streams."""
    tokens: Literal["auto", "on", "off"] = "auto"
    """Whether requests need a bearer token; auto: off on loopback, on elsewhere. off is refused off loopback."""
    max_streams: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Streams that run at a time, at most; whether one more fits is also measured."""


class FlowSettings(Section):
    """How frames move."""

    queue_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 128 << 20
    """Bytes that may wait behind each stage of a stream; a stage whose bytes are used up waits, and so the source."""
    plan: Literal["auto", "chained", "unchained"] = "auto"
    """chained: all stages of a stream in one process, no frame is copied. unchained: a process a stage, which spans
    machines. auto: the planner chooses. The output is the same."""
    hosts: Annotated[int, Field(ge=1, le=1024)] = 1
    """Worker processes of each pooled stage in the unchained plan, 1 to 1024; where they follow the load, the least."""
    max_hosts: Annotated[int, Field(ge=0, le=1024)] = 0
    """Worker processes of a pooled stage at most: between `hosts` and this their number follows the load. 0: it does
    not; the service takes the number of cores."""
    device: str = ""
    """Ray's resource that processes with networks are pinned to: GPU, or a custom one; "": none, they use the CPU."""
    device_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of one of it, (0, 1], that such a process takes: 0.25 puts four on a GPU."""
    target_utilisation: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of its workers' time, (0, 1], that a pooled stage is to be used to where their number follows the load."""


class Settings(Section):
    """One job's configuration; the keys of `limpid.yaml`."""

    graph: str = ""
    """Path of a logical graph (YAML); "" takes the shipped one, enhance.yaml."""
    source: SourceSettings = SourceSettings()
    enhance: EnhanceSettings = EnhanceSettings()
    refine: RefineSettings = RefineSettings()
    guard: GuardSettings = GuardSettings()
    analyse: AnalyseSettings = AnalyseSettings()
    encode: EncodeSettings = EncodeSettings()
    audio: AudioSettings = AudioSettings()
    original: OriginalSettings = OriginalSettings()
    record: RecordSettings = RecordSettings()
    outputs: OutputSettings = OutputSettings()
    flow: FlowSettings = FlowSettings()
    live: LiveSettings = LiveSettings()
    service: ServiceSettings = ServiceSettings()
    stage_modules: tuple[str, ...] = ()
    """Modules (or packages) whose classes a graph may name as `module:Class`. That runs their code: list only yours."""

    def to_dict(self) -> dict[str, Any]:
        """Return every setting as JSON-able values; `from_dict` takes them back."""
        return self.model_dump(mode="json")

    @staticmethod
    def from_dict(values: Mapping[str, Any], *, where: str = "settings") -> Settings:
        """Return the settings that `values` (nested by section) ask for; all else is the default.

        Raises:
            ConfigError: unknown keys or values out of range; names all of them.
        """
        try:
            return Settings.model_validate(dict(values))
        except ValidationError as error:
            raise _told(error, where) from error


def load_settings(
    path: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings of the YAML file `path`, the variables `env` and the dotted `overrides` ("enhance.scale").

    Args:
        path: the file; None for none. An empty file is legal.
        env: variables; None takes the process's.
        overrides: what the command line says.

    Raises:
        ConfigError: the file cannot be read or is no YAML mapping, or settings are wrong; names all of them.
    """
    values = _read(path) if path else {}
    where = str(path) if path else "settings"
    for name, text in sorted((os.environ if env is None else env).items()):
        if name.startswith(ENV_PREFIX) and name not in NOT_SETTINGS:
            _put(values, name[len(ENV_PREFIX) :].lower().split("__"), _scalar(name, text), where=name)
    for dotted, value in (overrides or {}).items():
        _put(values, dotted.split("."), value, where=dotted)
    return Settings.from_dict(values, where=where)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the known name nearest to `name`, or all of them if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), hint="give the path of a YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"is no YAML: {text}", where=str(path), hint="correct the file at that place") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"holds a {type(values).__name__}, not settings", where=str(path), hint="write 'enhance: {scale: 2}'"
        )
    return values


def _scalar(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{text}' is no value", where=name, hint="write it as in YAML") from error


def _put(values: dict[str, Any], path: list[str], value: Any, *, where: str) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"'{key}' is a single value, not a section", where=where, hint="check the names")
        values = inner
    values[path[-1]] = value


def _told(error: ValidationError, where: str) -> ConfigError:
    faults = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            faults.append(f"unknown key '{path}', {nearest(str(fault['loc'][-1]), _keys(fault['loc'][:-1]))}")
        else:
            message = fault["msg"][:1].lower() + fault["msg"][1:]
            faults.append(f"{path} is {fault['input']!r}: {message}")
    if len(faults) == 1:
        return ConfigError(faults[0], where=where, hint="docs/operations.md lists every setting")
    return ConfigError(
        f"{len(faults)} faults: " + "; ".join(faults), where=where, hint="docs/operations.md lists every setting"
    )


def _keys(path: tuple[int | str, ...]) -> list[str]:
    section: Any = Settings
    for part in path:
        section = section.model_fields[str(part)].annotation
    return list(section.model_fields)
