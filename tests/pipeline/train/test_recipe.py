"""Recipes: complete, checked, and what they make the model's header say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.models import SHIPPED
from pipeline.models.fedsr import FEdsr
from pipeline.models.load import load_any, load_model
from pipeline.train.data import training_files
from pipeline.train.recipe import RECIPES, load_recipe, load_tcsr_recipe

F_EDSR = sorted(RECIPES.glob("f_edsr_*.yaml"))


@pytest.mark.parametrize("path", F_EDSR, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_named_after_its_model(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name.replace("-", "_") == path.stem
    assert recipe.name.startswith(f"f-edsr-x{recipe.network.scale}")
    assert recipe.network.expand == 2
    assert recipe.quick().pairs.scale == recipe.network.scale


def test_the_family_sees_the_same_material() -> None:
    first = load_recipe(RECIPES / "f_edsr_x2.yaml")
    family = [load_recipe(path) for path in F_EDSR if path.stem != "f_edsr_x2"]
    assert len(family) == 7
    for recipe in family:
        assert recipe.sources == first.sources
        assert replace(recipe.pairs, scale=2, patch_px=80) == replace(
            first.pairs, clip_variants=60, still_variants=4, sheets=400, scene_variants=6
        )


def test_the_sizes_of_x2_are_in_order() -> None:
    names = ("_nano", "_small", "", "_medium", "_large", "_huge")
    networks = [load_recipe(RECIPES / f"f_edsr_x2{name}.yaml").network for name in names]
    sizes = [sum(p.numel() for p in FEdsr(replace(network, expand=0)).parameters()) for network in networks]
    assert all(2 * small <= large for small, large in pairwise(sizes)), sizes


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_shipped_model_has_a_recipe_of_the_same_shape(path: Path) -> None:
    header, network = load_any(path)
    load = load_recipe if header.kind == "f-edsr" else load_tcsr_recipe
    recipe = load(RECIPES / f"{path.stem.replace('-', '_')}.yaml")
    assert (header.name, header.version) == (recipe.name, recipe.version)
    trained, shipped = recipe.network.to_dict(), network.config.to_dict()
    if header.kind == "f-edsr":
        trained["expand"] = 0  # folded
    assert trained == shipped


def test_the_recipe_of_tcsr_refines_what_ships() -> None:
    recipe = load_tcsr_recipe(RECIPES / "tcsr_x2.yaml")
    assert (SHIPPED / f"{recipe.enhanced_by}.safetensors").is_file()
    assert recipe.network.form == "low"
    assert recipe.sources == load_recipe(RECIPES / "f_edsr_x2.yaml").sources
    assert recipe.quick().train.steps < 100
    with pytest.raises(ConfigError, match="scale 3"):
        replace(recipe, network=replace(recipe.network, scale=3))


def test_each_file_that_is_trained_on_has_a_licence_in_the_recipe(shared_data: Path) -> None:
    recipe = load_recipe(RECIPES / "f_edsr_x2.yaml")
    says = recipe.trained_on(shared_data)
    assert len(training_files(shared_data)) > 500
    assert not [text for text in says if "not stated)" in text]
    assert says[-1].startswith("rendered scene")
    assert load_model(SHIPPED / "f-edsr-x2.safetensors")[0].trained_on == says


def test_a_file_without_a_stated_licence_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "train"
    folder.mkdir(parents=True)
    (folder / "mine.mp4").touch()
    says = load_recipe(RECIPES / "f_edsr_x2.yaml").trained_on(tmp_path)
    assert says[0] == "clips/train/mine.mp4 (licence not stated)"


def test_without_data_only_rendered_material_is_named() -> None:
    assert len(load_recipe(RECIPES / "f_edsr_x2.yaml").trained_on(None)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\nstep: 3", "unknown key 'step'"),
        ("name: x\ntrain: {rates: 1.0}", "train: unknown key 'rates'"),
        ("name: x\ntrain: {steps: many}", "'steps' is 'many'"),
        ("name: x\ntrain: {steps: 1.5}", "'steps' is 1.5"),
        ("name: x\ntrain: 5", "'train' is 5"),
        ("name: x\nnetwork: {scale: 9}", "scale is 9"),
        ("name: x\nnetwork: {scale: 3}", "network of scale 3 cannot learn from pairs of scale 2"),
        ("name: x\ntrain: {device: tpu}", "unknown device 'tpu'"),
        ("name: x\nbase: f_edsr_x9", "unknown base 'f_edsr_x9'"),
        ("name: x\nbase: [f_edsr_x2]", "unknown base"),
        ("name: x\nbase: f_edsr_x3", "'f_edsr_x3' has a base itself"),
        ("base: f_edsr_x2", "'name' is missing"),
        ("name: x\nsources: [a]", "'sources' is"),
        ("version: 1", "'name' is missing"),
        ("- name", "a table of keys"),
        ("name: [", "no YAML"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_recipe(path)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")


def test_whole_numbers_do_for_real_ones(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\ntrain: {rate: 1}")
    assert load_recipe(path).train.rate == 1.0


def test_a_recipe_takes_from_its_base_what_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nbase: f_edsr_x2\nnetwork: {channels: 48}\nsources: {'stills/*': mine}")
    recipe, base = load_recipe(path), load_recipe(RECIPES / "f_edsr_x2.yaml")
    assert (recipe.name, recipe.version) == ("x", 1)
    assert recipe.network == replace(base.network, channels=48)
    assert (recipe.pairs, recipe.train) == (base.pairs, base.train)
    assert recipe.sources == {**base.sources, "stills/*": "mine"}
