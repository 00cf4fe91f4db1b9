"""The rules of training and sending: cases by hand, and invariants over random streams."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.errors import ConfigError
from pipeline.publisher.policy import Action, Begin, Policy, PolicyConfig, Send, Stop, Weights

CONFIG = PolicyConfig(fixed_gain_db=1.0, share=0.5, patience_s=3.0, max_steps=100)


def looked(policy: Policy, at_s: float, *, deployed: float = 30, generic: float = 30, changed: bool = False,
           expected: float = 9) -> list[Action]:  # fmt: skip
    return policy.looked(
        at_s, deployed_db=deployed, generic_db=generic, since_s=at_s, changed=changed, expected_db=expected
    )


def test_the_first_pair_begins_a_training_and_the_next_does_not() -> None:
    policy = Policy(CONFIG)
    assert looked(policy, 0) == [Begin(start=Weights.GENERIC, since_s=0, target_db=1.0)]
    assert looked(policy, 0.5) == []


def test_the_target_is_the_smaller_of_the_fixed_gain_and_a_share_of_the_expected() -> None:
    assert looked(Policy(CONFIG), 0, expected=1.2) == [Begin(start=Weights.GENERIC, since_s=0, target_db=0.6)]


def test_it_stops_at_the_target_and_sends_the_best() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    assert policy.judged(1, gain_db=0.04, steps=10) == []
    assert policy.judged(2, gain_db=1.1, steps=20) == [Stop(why="the target is reached"), Send(what=Weights.BEST)]
    assert not policy.training and policy.best_db == 1.1


def test_it_stops_when_nothing_rises() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    policy.judged(1, gain_db=0.3, steps=10)
    policy.sent(accepted=True, final=True)
    assert policy.judged(3, gain_db=0.31, steps=20) == []
    assert policy.judged(4, gain_db=0.2, steps=30) == [Stop(why="nothing rises any more")]
    assert policy.best_db == 0.3


def test_it_stops_at_the_limit() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    assert policy.judged(1, gain_db=-1, steps=100) == [Stop(why="the limit of steps is reached")]


def test_never_two_uploads_and_the_best_follows() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    assert policy.judged(1, gain_db=0.2, steps=10) == [Send(what=Weights.BEST)]
    assert policy.judged(1.5, gain_db=0.5, steps=20) == []
    assert policy.judged(2, gain_db=0.4, steps=30) == []
    assert policy.sent(accepted=True, final=True) == [Send(what=Weights.BEST)]
    assert policy.best_db == 0.5
    assert policy.sent(accepted=True, final=True) == []


def test_what_was_refused_is_not_offered_again_but_what_was_not_reached_is() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    policy.judged(1, gain_db=0.5, steps=10)
    assert policy.sent(accepted=False, final=False) == [Send(what=Weights.BEST)]
    assert policy.sent(accepted=False, final=True) == []


def test_at_a_cut_where_trained_weights_are_worse_the_generic_ones_come_back() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    policy.judged(1, gain_db=1.5, steps=10)
    policy.sent(accepted=True, final=True)
    assert looked(policy, 5, deployed=27, generic=28, changed=True) == [
        Send(what=Weights.GENERIC),
        Begin(start=Weights.GENERIC, since_s=5, target_db=1.0),
    ]
    assert policy.sent(accepted=True, final=True) == []
    assert looked(policy, 6, deployed=28, generic=28) == []


def test_generic_weights_wait_for_the_upload_under_way() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    policy.judged(1, gain_db=0.3, steps=10)
    policy.sent(accepted=True, final=True)
    policy.judged(2, gain_db=0.6, steps=20)
    assert looked(policy, 3, deployed=27, generic=28, changed=True) == [
        Begin(start=Weights.GENERIC, since_s=3, target_db=1.0)
    ]
    assert policy.sent(accepted=True, final=True) == [Send(what=Weights.GENERIC)]


def test_at_a_cut_where_trained_weights_are_better_they_are_what_training_starts_from() -> None:
    policy = Policy(CONFIG)
    looked(policy, 0)
    policy.judged(1, gain_db=1.5, steps=10)
    policy.sent(accepted=True, final=True)
    assert looked(policy, 5, deployed=29, generic=28, changed=True) == [
        Begin(start=Weights.DEPLOYED, since_s=5, target_db=1.0)
    ]


def test_a_share_of_all_is_refused() -> None:
    with pytest.raises(ConfigError):
        PolicyConfig(share=1.0)


class Streams(RuleBasedStateMachine):
    """Any order of signals: one upload at most, no candidate lost, no training without an end."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy(CONFIG)
        self.at_s = 0.0
        self.steps = 0
        self.under_way = 0
        self.judged: list[float] = []

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.under_way += 1
                assert action.what is not Weights.BEST or self.policy.best_db is not None
            elif isinstance(action, Begin):
                self.steps, self.judged = 0, []
                assert action.target_db <= CONFIG.fixed_gain_db

    @rule(deployed=st.floats(20, 40), generic=st.floats(20, 40), changed=st.booleans(), expected=st.floats(0, 3))
    def look(self, deployed: float, generic: float, changed: bool, expected: float) -> None:
        self.at_s += 0.5
        self.do(looked(self.policy, self.at_s, deployed=deployed, generic=generic, changed=changed, expected=expected))

    @rule(gain=st.floats(-2, 3), steps=st.integers(1, 30))
    def judge(self, gain: float, steps: int) -> None:
        if self.policy.training:
            self.steps += steps
            self.judged.append(gain)
        self.do(self.policy.judged(self.at_s, gain_db=gain, steps=self.steps))
        assert not (self.policy.training and self.steps >= CONFIG.max_steps)

    @precondition(lambda self: self.under_way)
    @rule(accepted=st.booleans(), final=st.booleans())
    def end(self, accepted: bool, final: bool) -> None:
        self.under_way -= 1
        self.do(self.policy.sent(accepted=accepted and final, final=final))

    @invariant()
    def never_two_uploads(self) -> None:
        assert self.under_way == (self.policy.sending is not None) <= 1

    @invariant()
    def the_best_is_within_a_rise_of_the_largest(self) -> None:
        if self.judged and max(self.judged) >= CONFIG.rise_db:
            assert self.policy.best_db is not None
            assert self.policy.best_db > max(self.judged) - CONFIG.rise_db - 1e-9


Streams.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_streams = Streams.TestCase
