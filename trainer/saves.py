"""What a run keeps so that it can go on: the checkpoints of one run, and everything that goes into them.

The state, the adapter, the optimizer and each process's random numbers are saved and put back together; nothing else in
the trainer knows what belongs to them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from . import checkpoint, randomness
from .checkpoint import Identity, Loaded, State
from .model import Trainable
from .processes import Processes
from .settings import TrainConfig


class Saves:
    """The checkpoints below `folder`, and what is in training."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        config: TrainConfig,
        processes: Processes,
        trainable: Trainable,
        optimizer: torch.optim.Optimizer,
        state: State,
    ) -> None:
        self.folder = folder
        self._identity, self._config, self._processes = identity, config, processes
        self._trainable, self._optimizer, self._state = trainable, optimizer, state

    def save(self, root: Path | None = None) -> None:
        """Write a checkpoint, below another folder where one is given, and drop those that need not stay there."""
        rng = self._processes.gather(randomness.state())
        if self._processes.main:
            root = root or self.folder
            checkpoint.save(
                root,
                self._state,
                self._identity,
                adapter=self._trainable.adapter(),
                adapter_config=self._trainable.adapter_config(self._config.model.id),
                optimizer=self._optimizer.state_dict(),
                rng=rng,
            )
            best = self._state.best_step if self._state.best_loss is not None else None
            checkpoint.prune(root, self._config.checkpoint.keep, best)
        self._processes.wait()

    def resume(self, *, force: bool) -> list[str] | None:
        """Go on from the newest checkpoint: what is to be said of it, or None where there is none.

        Raises the errors of `checkpoint.check_same_run` for one of another run, unless forced.
        """
        loaded = checkpoint.load(self.folder, "cpu")
        if loaded is None:
            return None
        found = checkpoint.check_same_run(loaded.folder, self._identity, force=force)
        self._put_back(loaded)
        return [*loaded.notes, *(f"Resuming although this changed: {d}." for d in found)]

    def restore(self) -> None:
        """Put back the newest checkpoint of this very process's run, which has one from its first step on."""
        loaded = checkpoint.load(self.folder, "cpu")
        assert loaded is not None
        self._put_back(loaded)

    def _put_back(self, loaded: Loaded) -> None:
        self._trainable.set_adapter(loaded.adapter)
        self._optimizer.load_state_dict(dict(loaded.optimizer))
        for name, value in vars(loaded.state).items():
            setattr(self._state, name, value)
        if self._state.level:
            self._trainable.layers.set(self._state.level)
        if self._processes.rank < len(loaded.rng):
            randomness.restore(loaded.rng[self._processes.rank])

    def final(self) -> Path:
        """The checkpoint that the run ends with: the best one where the run stops early by it, else the last."""
        state = self._state
        best = self._config.eval.patience and state.best_loss is not None
        return self.folder / f"step-{state.best_step if best else state.step:07d}"
