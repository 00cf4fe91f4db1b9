"""Which weights a stream's frames are made with: what is taken, what is refused, when it goes back.

Theory of operation. A stream begins with its *generic* weights. A publisher pushes others; the canary
(`pipeline.train.canary`) says what they are worth on the key frames captured last. Better by more than MARGIN_DB:
*promoted*. They get a stamp from a frame on that nothing has met, so no batch is made with two models and none waits.
Else *rejected*. A *rollback* leads to the weights that were in use before, in the end to the generic ones. Key frames
that come later say what the weights in use gain over the generic ones; when the mean of the last JUDGED of them turns
negative, but not on fewer than LEAST_JUDGED, they are taken back by themselves, to the generic ones: these are what
they were compared with.

Order of writing: the weights' file, the history, the stamp, the event. A process that dies in between leaves a file
that nothing names, or a history that is ahead of the stamps, which `settled` mends.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import ModelRejected, StorageError
from pipeline.flow.ledger import Ledger
from pipeline.graph import Node
from pipeline.store import modelhistory
from pipeline.store.modelhistory import ModelEntry, weights_name
from pipeline.wire.events import Event
from pipeline.wire.trials import Contest, Gain, Swap, Trial

MARGIN_DB = 0.02
"""A model has to be better by more than this (chosen): int8 and float differ by up to 0.01 dB on the same crops, and a
swap for less than that is work that nobody sees."""

JUDGED = 4  # key frames whose gains are averaged
LEAST_JUDGED = 2

Frontier = Callable[[], tuple[int, int]]
"""Gives the first frame (epoch, number) that no stage has met, when it is asked."""


class Swaps:
    """The weights of one stream's run.

    Args:
        ledger: of the run.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._gains: deque[float] = deque(maxlen=JUDGED)
        self._judged_ns = -1  # key frames up to then have been judged, or chose the model
        self._known: tuple[ModelEntry, ...] | None = None
        with contextlib.suppress(StorageError):  # a history that cannot be read is no reason for a stream to fail
            current = self._current
            ledger.gain_db = current.gain_db if current is not None else None

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The history, oldest first; none where nothing was pushed. Raises StorageError."""
        if self._known is None:
            self._known = modelhistory.settled(modelhistory.load_history(self._ledger.store), self._ledger.model)
        return self._known

    @property
    def generic(self) -> bool:
        """Whether the generic weights are in use."""
        return self._ledger.model == self._ledger.stamp.model

    @property
    def judged_ns(self) -> int:
        """Unix time of the last key frame that has been judged, or that chose the model; −1: none."""
        return self._judged_ns

    def contest(self, keys: Mapping[str, str]) -> Contest:
        """Return what a model of this stream is compared by. Raises ModelRejected where no network enhances it."""
        node, stamp = network_of(self._ledger.graph.nodes), self._ledger.stamp
        if node is None or not stamp.model:
            raise ModelRejected("no network enhances this stream", where="model", hint="run it with enhance.network")
        taken = [e.version for e in self.entries if e.state != "rejected"]
        return Contest(
            store=self._ledger.job.store,
            base=getattr(node.config, "model", ""),
            scale=getattr(node.config, "scale", 0),
            generic=stamp.model,
            current=self._ledger.model,
            runtime=stamp.runtime,
            threads=stamp.threads,
            least_version=max([modelhistory.version_of(stamp.model), *taken]) + 1,
            keys=dict(keys),
        )

    def judge(self, trial: Trial, *, now_s: float) -> None:
        """Return if a model is better than the one in use; else note that it was tried.

        Raises:
            ModelRejected: with both figures.
            StorageError: the history cannot be written.
        """
        if trial.psnr_after_db > trial.psnr_before_db + MARGIN_DB:
            return
        lead = f"{trial.psnr_after_db:.3f} dB against {trial.psnr_before_db:.3f} dB of {self._ledger.model}"
        reason = f"{lead} on the held-out key frames: it has to be better by more than {MARGIN_DB:g} dB"
        self._write((*self._begun(), replace(_entry(trial, now_s), state="rejected", reason=reason)))
        self._event("model.rejected", self._end(), {**_figures(trial), "reason": reason})
        raise ModelRejected(
            reason,
            where="model",
            hint="train on",
            figures={
                "psnr_before": trial.psnr_before_db,
                "psnr_after": trial.psnr_after_db,
                "version": trial.version,
            },
        )

    def store_weights(self, trial: Trial, data: bytes) -> None:
        """Make a model's file durable, so that it can be got ready.

        Raises:
            ModelRejected: another file of that version is there already.
            StorageError: it cannot be written.
        """
        name = weights_name(trial.model)
        if not self._ledger.store.put_new(name, data) and self._ledger.store.get(name) != data:
            raise ModelRejected(
                f"the stream has another model of version {trial.version} already",
                where="model",
                hint="give each model a higher version than the one before",
                figures={"version": trial.version},
            )

    def promote(self, trial: Trial, frontier: Frontier, *, now_s: float) -> Swap:
        """Have frames that nothing has met made with a model whose file is durable; return from which on.

        Raises:
            StorageError: that cannot be written: the stream goes on with the weights that it has.
        """
        before = self._ledger.model
        epoch, seq = self._ledger.first_free(*frontier())
        entry = replace(_entry(trial, now_s), before=before, epoch=epoch, seq=seq)
        epoch, seq = self._swap(modelhistory.promoted(self._begun(), entry), trial.model, (epoch, seq))
        self._ledger.gain_db = trial.gain_db
        self._gains.clear()
        self._judged_ns = trial.latest_ns
        self._event("model.promoted", (epoch, seq), {**_figures(trial), "gain_db": trial.gain_db, "before": before})
        return Swap(
            model=trial.model,
            version=trial.version,
            epoch=epoch,
            seq=seq,
            psnr_before_db=trial.psnr_before_db,
            psnr_after_db=trial.psnr_after_db,
        )

    def way_back(self) -> str:
        """Return the model that a rollback leads to.

        Raises:
            ModelRejected: the generic one is in use.
        """
        if self.generic:
            raise ModelRejected(
                "the generic model is in use: there is none before it", where="model", hint="push another model"
            )
        current = self._current
        return current.before if current is not None and current.before else self._ledger.stamp.model

    def roll_back(self, to: str, frontier: Frontier, *, reason: str) -> Swap:
        """Have frames that nothing has met made with earlier weights; return from which on. Raises StorageError."""
        taken_back, gain_db = self._ledger.model, self._ledger.gain_db
        epoch, seq = self._swap(modelhistory.rolled_back(self._begun(), to, reason), to, frontier())
        current = self._current
        self._ledger.gain_db = current.gain_db if current is not None and not self.generic else None
        self._gains.clear()
        data = {"model": taken_back, "to": to, "reason": reason, "gain_db": gain_db}
        self._event("model.rolled_back", (epoch, seq), data)
        return Swap(model=to, version=modelhistory.version_of(to), epoch=epoch, seq=seq)

    def note(self, gains: Sequence[Gain]) -> str:
        """Take in what the weights in use gain on key frames; return why they are to be taken back, "" if not."""
        for gain in gains:
            self._judged_ns = max(self._judged_ns, gain.captured_ns)
            self._gains.append(gain.gain_db)
        if not self._gains:
            return ""
        self._ledger.gain_db = mean = sum(self._gains) / len(self._gains)
        if mean >= 0 or len(self._gains) < LEAST_JUDGED:
            return ""
        return f"{mean:+.3f} dB against the generic model on the last {len(self._gains)} key frames"

    # --- small things --------------------------------------------------------------------------------------------

    @property
    def _current(self) -> ModelEntry | None:
        return next((entry for entry in self.entries if entry.state == "current"), None)

    def _begun(self) -> tuple[ModelEntry, ...]:
        """Return the history, which begins with the generic model."""
        if self.entries:
            return self.entries
        generic = self._ledger.stamp.model
        return (ModelEntry(model=generic, version=modelhistory.version_of(generic), state="current", epoch=0, seq=0),)

    def _swap(self, entries: tuple[ModelEntry, ...], model: str, at: tuple[int, int]) -> tuple[int, int]:
        """Write the history, then the stamp; without the stamp the history is as it was."""
        self._write(entries)
        try:
            return self._ledger.swap(model, *at)
        except StorageError:
            self._known = modelhistory.settled(entries, self._ledger.model)
            raise

    def _write(self, entries: tuple[ModelEntry, ...]) -> None:
        modelhistory.save_history(self._ledger.store, entries)
        self._known = entries

    def _end(self) -> tuple[int, int]:
        progress = self._ledger.progress()
        return progress.epoch, progress.seq

    def _event(self, kind: str, at: tuple[int, int], data: Mapping[str, Any]) -> None:
        epoch, seq = at
        self._ledger.event(Event(type=kind, stream=self._ledger.job.stream, epoch=epoch, seq=seq, data=data))


def network_of(nodes: Sequence[Node]) -> Node | None:
    """Return the stage whose weights stamps name; None where no stage has any."""
    return next((node for node in nodes if node.networks), None)


def _entry(trial: Trial, now_s: float) -> ModelEntry:
    return ModelEntry(
        model=trial.model,
        version=trial.version,
        state="current",
        at_s=now_s,
        psnr_before_db=trial.psnr_before_db,
        psnr_after_db=trial.psnr_after_db,
        gain_db=trial.gain_db,
        parent=trial.parent,
        publisher=trial.publisher,
    )


def _figures(trial: Trial) -> dict[str, Any]:
    return {
        "model": trial.model,
        "version": trial.version,
        "publisher": trial.publisher,
        "psnr_before": trial.psnr_before_db,
        "psnr_after": trial.psnr_after_db,
    }
