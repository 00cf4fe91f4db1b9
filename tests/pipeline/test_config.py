"""Settings: precedence of the places they come from, and what is said about wrong ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.config import Section, Settings, load_settings, nearest
from pipeline.errors import ConfigError
from pipeline.graph import graph_of


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "limpid.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_no_file() -> None:
    assert load_settings(env={}) == Settings()


def test_command_line_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = _file(tmp_path, "encode: {crf: 30, preset: fast, threads: 2}\n")
    env = {"LIMPID_ENCODE__CRF": "31", "LIMPID_ENCODE__PRESET": "medium"}
    encode = load_settings(path, env=env, overrides={"encode.crf": 32}).encode
    assert (encode.crf, encode.preset, encode.threads, encode.segment_s) == (32, "medium", 2, 2.0)


def test_variable_is_read_as_yaml() -> None:
    settings = load_settings(env={"LIMPID_ENHANCE__ENABLED": "false", "LIMPID_STAGE_MODULES": "[a.b, c]"})
    assert not settings.enhance.enabled
    assert settings.stage_modules == ("a.b", "c")


def test_variables_of_others_and_of_clients_are_left_alone() -> None:
    assert load_settings(env={"PATH": "/bin", "LIMPID_SERVER": "http://a", "LIMPID_TOKEN": "t"}) == Settings()


def test_empty_file_is_legal(tmp_path: Path) -> None:
    assert load_settings(_file(tmp_path, "# nothing\n"), env={}) == Settings()


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(_file(tmp_path, "enhance: {scael: 2}\n"), env={})
    assert "unknown key 'enhance.scael', did you mean 'scale'?" in str(caught.value)
    assert "limpid.yaml" in caught.value.where


def test_misspelt_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'enhence', did you mean 'enhance'\?"):
        load_settings(env={"LIMPID_ENHENCE__SCALE": "2"})


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = _file(tmp_path, "encode: {crf: 99, preset: slowest}\nfoo: 1\nflow: {plan: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, env={})
    told = str(caught.value)
    assert "4 faults" in told
    for part in ("encode.crf is 99", "encode.preset is 'slowest'", "unknown key 'foo'", "flow.plan is 3"):
        assert part in told


@pytest.mark.parametrize(
    ("text", "said"),
    [("enhance: [", "is no YAML"), ("- a\n", "holds a list"), ("enhance: 3\n", "enhance is 3")],
)
def test_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_settings(_file(tmp_path, text), env={})


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_settings(tmp_path / "absent.yaml", env={})


def test_section_cannot_be_overridden_below_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'enhance' is a single value"):
        load_settings(_file(tmp_path, "enhance: 3\n"), env={"LIMPID_ENHANCE__SCALE": "2"})


def test_settings_survive_json() -> None:
    settings = Settings.from_dict({"encode": {"crf": 30}, "stage_modules": ["a"]})
    assert Settings.from_dict(settings.to_dict()) == settings


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().encode.crf = 3  # type: ignore[misc]  # that is what is tested


def test_nearest_lists_all_when_none_is_near() -> None:
    assert nearest("zzz", ["beta", "alpha"]) == "known are alpha, beta"


def _fields(section: type[Section], path: str = "") -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names += _fields(kind, f"{path}{name}.")
        else:
            names.append(f"{path}{name}")
    return names


def test_every_setting_is_documented() -> None:
    """docs/operations.md has a row `| `path` | …` for each setting."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    missing = [name for name in _fields(Settings) if f"| `{name}` |" not in text]
    assert not missing


def test_settings_have_the_defaults_of_the_stages_that_they_configure() -> None:
    """Two tables say what a stage does when nothing is said: a figure tuned in one of them only would never be used."""
    settings = Settings()
    checked = 0
    for node in graph_of(settings).nodes:
        section, default = getattr(settings, node.name, None), node.stage.Config()
        for field in fields(default) if section is not None else ():
            if hasattr(section, field.name):
                assert getattr(section, field.name) == getattr(default, field.name), f"{node.name}.{field.name}"
                checked += 1
    assert checked >= 10
