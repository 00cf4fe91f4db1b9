"""A recipe: the complete description of the run that makes one model file, as YAML.

The recipes of the shipped weights lie in `recipes/`. Keys are the fields of `Recipe` and of the configurations in it;
what a recipe leaves out has its default, an unknown key is an error. `base: f_edsr_x2` takes what is left out from that
recipe of `recipes/` instead, except its name and version.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from pipeline.errors import ConfigError
from pipeline.models.fedsr import FEdsrConfig
from pipeline.models.tcsr import TcsrConfig
from pipeline.train.data import PairsConfig, training_files
from pipeline.train.refining import RefineConfig
from pipeline.train.run import TrainConfig

RECIPES = Path(__file__).parent / "recipes"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What to train, on what, how; and what the header of the model file is to say of it."""

    name: str  # of the model: "f-edsr-x2"
    version: int = 1
    network: FEdsrConfig = field(default_factory=lambda: FEdsrConfig(expand=2))
    pairs: PairsConfig = field(default_factory=PairsConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sources: Mapping[str, str] = field(default_factory=dict)  # pattern of files under DIR -> origin and licence

    def __post_init__(self) -> None:
        if self.network.scale != self.pairs.scale:
            raise ConfigError(
                f"a network of scale {self.network.scale} cannot learn from pairs of scale {self.pairs.scale}",
                where=self.name,
                hint="give network and pairs the same scale",
            )

    def quick(self) -> Recipe:
        """Return the recipe shrunk to seconds: to see that everything runs, not to get good weights."""
        pairs = replace(
            self.pairs, clip_variants=1, window_frames=24, still_variants=1, sheets=12, scenes=1, scene_variants=2
        )
        train = replace(self.train, steps=150, batch=8, judge_every=50, judge_patches=64, warmup_steps=10)
        return replace(self, pairs=pairs, train=train)

    def trained_on(self, data: Path | None) -> tuple[str, ...]:
        """Return what the header says that the weights saw: each source with its licence, and what has none stated."""
        rendered = f"rendered scene ({self.pairs.scenes} streets) and {self.pairs.sheets} drawn sheets, made by Limpid"
        return (*_said(self.sources, data), rendered)


@dataclass(frozen=True, kw_only=True, slots=True)
class TcsrRecipe:
    """The same of a TCSR. `pairs` says what material is made; a window is `pairs.patch_px` wide on the low grid."""

    name: str  # of the model: "tcsr-x2"
    version: int = 1
    enhanced_by: str = "f-edsr-x2"  # the F-EDSR whose output it refines: a shipped model's name, or a file
    runtime: str = "openvino-int8"  # that F-EDSR runs in, as it will when frames are refined
    network: TcsrConfig = field(default_factory=TcsrConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    train: RefineConfig = field(default_factory=RefineConfig)
    sources: Mapping[str, str] = field(default_factory=dict)  # as Recipe's

    def __post_init__(self) -> None:
        if self.network.scale != self.pairs.scale:
            raise ConfigError(
                f"a network of scale {self.network.scale} cannot learn from windows of scale {self.pairs.scale}",
                where=self.name,
                hint="give network and pairs the same scale",
            )

    def quick(self) -> TcsrRecipe:
        """Return the recipe shrunk to seconds: to see that everything runs, not to get good weights."""
        pairs = replace(self.pairs, clip_variants=1, window_frames=24, still_variants=1, scenes=1, scene_variants=1)
        train = replace(self.train, steps=60, batch=4, judge_every=30, judge_windows=48, warmup_steps=10)
        return replace(self, pairs=pairs, train=train)

    def trained_on(self, data: Path | None) -> tuple[str, ...]:
        """Return what the header says that the weights saw, as Recipe's does."""
        rendered = f"rendered scene ({self.pairs.scenes} streets), made by Limpid"
        return (*_said(self.sources, data), rendered, f"enhanced by {self.enhanced_by} in {self.runtime}")


def _said(sources: Mapping[str, str], data: Path | None) -> tuple[str, ...]:
    says: list[str] = []
    unknown: list[str] = []
    for path in training_files(data) if data is not None else []:
        name = path.relative_to(data).as_posix() if data is not None else path.name
        found = [text for pattern, text in sources.items() if fnmatch(name, pattern)]
        says += [text for text in found[:1] if text not in says]
        unknown += [] if found else [f"{name} (licence not stated)"]
    return (*says, *unknown)


def load_recipe(path: Path) -> Recipe:
    """Return the recipe in the YAML file `path`.

    Raises:
        ConfigError: it cannot be read, or a key or value in it is wrong.
    """
    return _read(Recipe, path)


def load_tcsr_recipe(path: Path) -> TcsrRecipe:
    """Return the recipe of a TCSR in the YAML file `path`; raises as `load_recipe`."""
    return _read(TcsrRecipe, path)


def _read(kind: type[T], path: Path) -> T:
    values = _values(path)
    if "base" in values:
        values = _based(values, values.pop("base"), str(path))
    return _filled(kind, values, str(path))


def _values(path: Path) -> dict[str, Any]:
    where = str(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where, hint="give a recipe") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"no YAML: {error}", where=where, hint="correct it") from error
    if not isinstance(values, dict):
        raise ConfigError("a recipe is a table of keys", where=where, hint=f"see {RECIPES / 'f_edsr_x2.yaml'}")
    return values


def _based(values: Mapping[str, Any], base: object, where: str) -> dict[str, Any]:
    """Return `values` over those of the shipped recipe `base`: tables are merged key by key, one level deep."""
    known = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if base not in known:
        raise ConfigError(f"unknown base {base!r}", where=where, hint=f"known are {', '.join(known)}")
    out = {key: value for key, value in _values(RECIPES / f"{base}.yaml").items() if key not in ("name", "version")}
    if "base" in out:
        raise ConfigError(f"'{base}' has a base itself", where=where, hint=f"build on {out['base']}")
    for key, value in values.items():
        below = out.get(key)
        out[key] = below | value if isinstance(below, dict) and isinstance(value, dict) else value
    return out


def _filled(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return `kind` with its fields from `values`, types checked, nested configurations filled likewise."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(map(str, values)) - set(names))
    if unknown:
        raise ConfigError(f"unknown key '{unknown[0]}'", where=where, hint=f"known are {', '.join(names)}")
    out: dict[str, Any] = {}
    for name, value in values.items():
        wanted = hints[name]
        if isinstance(wanted, type) and is_dataclass(wanted):
            if not isinstance(value, dict):
                raise ConfigError(f"'{name}' is {value!r}", where=where, hint="it is a table of keys")
            out[name] = _filled(wanted, value, f"{where}: {name}")
        elif wanted is float and type(value) is int:
            out[name] = float(value)
        elif isinstance(wanted, type) and not isinstance(wanted, types.GenericAlias):
            if type(value) is not wanted:
                raise ConfigError(f"'{name}' is {value!r}", where=where, hint=f"it is of type {wanted.__name__}")
            out[name] = value
        else:  # the sources
            if not isinstance(value, dict) or not all(isinstance(x, str) for pair in value.items() for x in pair):
                raise ConfigError(f"'{name}' is {value!r}", where=where, hint="it maps patterns to texts")
            out[name] = dict(value)
    if kind in (Recipe, TcsrRecipe) and "name" not in out:
        raise ConfigError("'name' is missing", where=where, hint="give the model's name")
    return kind(**out)
