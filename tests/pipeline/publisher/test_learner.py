"""Learner: it gains on what it has not seen, gives up what does not help, and knows what the service has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pipeline.models.load import build
from pipeline.publisher.coldstart import UNSTOPPED
from pipeline.publisher.learner import LearnConfig, Learner, Offer
from pipeline.publisher.policy import PolicyConfig
from pipeline.vision.upscale import bicubic
from tests.pipeline.publisher.made import generic, pair

CONFIG = LearnConfig(
    rate=5e-3, batch=4, crop_px=32, average=0.8, policy=PolicyConfig(fixed_gain_db=1.0, share=0.9, patience_s=4.0)
)


def follow(learner: Learner, start_s: float, *, count: int, seed: int = 1, steps: int = 15) -> list[Offer]:
    """Show pairs twice a second with steps between them; uploads arrive at once."""
    offers: list[Offer] = []
    for i in range(count):
        found = learner.look(pair(start_s + i / 2, seed=seed, shift=3 * i))
        while found:
            offers += found
            found = learner.sent(accepted=True, final=True)
        for _ in range(steps):
            if learner.training:
                learner.step()
    return offers


def test_it_reaches_its_target_on_the_future_and_stops() -> None:
    learner = Learner(*generic(), CONFIG, lambda _: 9.0)
    before = learner.deployed_db(pair(99, shift=50))
    offers = follow(learner, 0, count=14)
    standing = learner.standing()
    assert not standing.training and standing.why == "the target is reached"
    assert standing.gain_db is not None and standing.gain_db >= 1.0
    assert learner.deployed_db(pair(99, shift=50)) > before + 0.8
    assert standing.deployed == offers[-1].header.version


def test_an_offer_is_a_whole_model_with_key_frames_of_the_future() -> None:
    header, net = generic()
    offers = follow(Learner(header, net, CONFIG, lambda _: 9.0), 0, count=14)
    versions = [offer.header.version for offer in offers]
    assert versions == sorted(set(versions)) and versions[0] == 1_700_000_000 + int(versions[0] - 1.7e9)
    offer = offers[-1]
    tensors = {name: torch.from_numpy(array) for name, array in offer.state.items()}
    rebuilt = build(offer.header, tensors, where="test")
    assert rebuilt.config == net.config
    assert offer.header.parent == "f-edsr-x2@1"
    assert list(offer.header.ranges) == [name for name, _ in net.layers()]
    assert 1 <= len(offer.key_frames) <= 2 and offer.key_frames[0].scale == 2
    assert offer.key_frames[-1].captured_ns // 1_000_000_000 <= offer.header.version


def test_a_scene_change_begins_another_training_on_the_new_scene_only() -> None:
    learner = Learner(*generic(), CONFIG, lambda _: 9.0)
    follow(learner, 0, count=14)
    assert learner.standing().trainings == 1
    follow(learner, 7, count=4, seed=6)
    assert learner.standing().trainings == 2
    assert all(sample.pair.at_s >= 7 for sample in learner._trainable())


def test_trained_weights_that_are_worse_give_way_to_the_generic_ones() -> None:
    learner = Learner(*generic(), CONFIG, lambda _: 9.0)
    follow(learner, 0, count=14)
    flat = pair(8.0)
    flat = replace(flat, high=bicubic(flat.low, 2))  # nothing can be added to it: generic weights are right
    offers = learner.look(flat)
    assert [offer.header.parent for offer in offers] == ["f-edsr-x2@1"]
    _, net = generic()
    assert all(np.array_equal(offers[0].state[name], tensor.numpy()) for name, tensor in net.state_dict().items())
    learner.sent(accepted=True, final=True)
    assert learner.deployed_db(flat) > 50


def test_the_last_second_is_never_trained_on() -> None:
    learner = Learner(*generic(), CONFIG, lambda _: 9.0)
    for i in range(6):
        learner.look(pair(i / 2))
        trained = [sample.pair.at_s for sample in learner._trainable()]
        assert trained == ([0.0] if i < 3 else [j / 2 for j in range(i - 1)])


def test_a_silent_source_is_not_trained_on_for_ever() -> None:
    learner = Learner(*generic(), replace(CONFIG, batch=1, crop_px=16, policy=UNSTOPPED), lambda _: 9.0)
    learner.look(pair(0))
    steps = 0
    while learner.training:
        learner.step()
        steps += 1
    assert steps == 400
    learner.look(pair(0.5))
    assert learner.training


def test_the_same_pairs_give_the_same_models() -> None:
    one, other = (follow(Learner(*generic(), CONFIG, lambda _: 9.0), 0, count=8) for _ in range(2))
    assert one and len(one) == len(other)
    assert all(np.array_equal(one[-1].state[name], other[-1].state[name]) for name in one[-1].state)
