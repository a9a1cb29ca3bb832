"""The training run, on one page.

    state = train(Job(run, resolved, plan, dataset, tokenizer, base))

Each turn of `_Loop.run` is one optimizer step over the next sequences of the epoch. The device is waited for only
every `run.log_every` steps and before an evaluation or a checkpoint: there `_settle` fetches the losses, the guard
looks at them, and the record goes out. Whatever is saved has passed the guard.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from . import checkpoint, metrics, model, status, step, trackers
from .checkpoint import Identity, State
from .errors import Diverged, OutOfMemory, Stopped
from .interruption import Stop, wish_to_stop
from .journal import say
from .launch import Job
from .meter import Meter
from .optimizer import learning_rate, make_optimizer, total_steps
from .plan import GIB
from .processes import Processes
from .samples import Samples
from .saves import Saves


def train(job: Job) -> State:
    """Train to the end, going on from the run's newest checkpoint where there is one.

    Leaves the adapter, the loss plot and a `finished` status. Raises Stopped after SIGTERM or SIGINT (saved), and
    the errors of `errors.py`.
    """
    with ExitStack() as stack:
        device = model.pick_device(job.config.run.device)
        processes = Processes(Accelerator(cpu=device.type == "cpu"))
        if processes.main:
            stack.enter_context(status.only_one(job.run))
            status.forget_stop(job.run)
            checkpoint.clean_unfinished(job.run / "checkpoints")
        stop = stack.enter_context(wish_to_stop(job.run))
        try:
            return _Loop(job, processes, stop, stack).run()
        except torch.OutOfMemoryError as error:  # not a micro-batch, which is done again: the optimizer, an evaluation
            raise OutOfMemory(
                "Out of memory beside the micro-batches. The last checkpoint is intact: free what other programs hold "
                "and run the same command to go on, or lower lora.rank or eval.sample_tokens."
            ) from error


class _Loop:
    def __init__(self, job: Job, processes: Processes, stop: Stop, stack: ExitStack) -> None:
        self.job, self.config, self.dataset = job, job.config, job.dataset
        self.processes, self.main, self.stop = processes, processes.main, stop
        identity = Identity(self.config, self.dataset.digest, self.dataset.facts.file_hash, processes.count)
        self.total = total_steps(self.config, len(self.dataset.train), processes.count)
        self._status("starting")
        self.meter = Meter(job.plan, processes.device, processes=processes.count, total=self.total)
        self.trainable = model.prepare(self.config, job.base, processes.device, job.tokenizer.size)
        self.trainable.model.train()
        self.optimizer = make_optimizer(self.config, self.trainable)
        self.state = State(micro=self.config.batch.micro)
        held = (self.trainable, self.optimizer, self.state)
        self.saves = Saves(job.run / "checkpoints", identity, self.config, processes, *held)
        torch.manual_seed(self.config.run.seed + processes.rank)  # dropout differs between processes
        resumed = self._resume()
        self.jsonl = metrics.JsonLines(job.run / "metrics.jsonl") if self.main else None
        shown = (
            trackers.open_listeners(job.run, self.config, self.total, self.state.step, self._say) if self.main else []
        )
        self.metrics = metrics.Metrics([*([self.jsonl] if self.jsonl else []), *shown])
        stack.callback(self.metrics.close)
        looks = (self.config.eval.samples, self.config.eval.sample_tokens)
        self.samples = Samples(job.run, self.dataset, job.tokenizer, *looks)
        if self.jsonl is not None:
            self.jsonl.forget_after(self.state.step)
        if not resumed:
            self.saves.save()
        self.sensor = metrics.GpuSensor()
        self.pending: list[tuple[int, Tensor, Tensor]] = []
        self.backup_clock = time.monotonic()
        self.meter.restart(self.state.tokens)
        self.order: tuple[int, Any] = (-1, None)

    def run(self) -> State:
        config, state = self.config, self.state
        while state.step < self.total and not state.stopped_early:
            self.meter.begin()
            self._step()
            self._calibrate(self.meter.end(self.total - state.step))
            done = state.step
            last = done == self.total
            evaluating = bool(config.eval.every and self.dataset.eval) and (done % config.eval.every == 0 or last)
            saving = done % config.checkpoint.every == 0 or last
            waited = time.monotonic() - self.backup_clock
            due = waited >= config.checkpoint.backup_minutes * 60
            backing = config.checkpoint.backup is not None and self.processes.anyone(due)
            stopping = bool(self.stop.name) and self.processes.count == 1
            if not (evaluating or saving or backing or stopping or done % config.run.log_every == 0):
                continue
            if not self._settle():
                continue  # rolled back
            if evaluating:
                saving |= self._evaluate()
            stopping = self.processes.anyone(bool(self.stop.name))
            if saving or stopping or state.stopped_early:
                self.saves.save()
            if backing and config.checkpoint.backup is not None:
                self.saves.save(config.checkpoint.backup / self.job.run.name)
                self.backup_clock = time.monotonic()
            if stopping and not last:
                raise Stopped(
                    f"Stopped by {self.stop.name or 'another process'} at step {done} of {self.total}, saved. Run the "
                    "same command to go on."
                )
        self._finish()
        return state

    def _step(self) -> None:
        config, state = self.config, self.state
        size = config.batch.micro * config.batch.accumulation * self.processes.count
        if self.order[0] != state.epoch:
            self.order = (state.epoch, self.dataset.order(state.epoch))
        groups = [self.dataset.train[i] for i in self.order[1][state.position : state.position + size]]
        state.position += size
        state.tokens += step.all_tokens(self.dataset, groups)
        rate = learning_rate(config, state.step, self.total)
        state.step += 1
        if state.position >= len(self.dataset.train):
            state.epoch, state.position = state.epoch + 1, 0
        if state.step in state.skipped:
            return
        loss, state.micro = step.accumulate(
            self.trainable,
            self.dataset,
            groups[self.processes.rank :: self.processes.count],
            step.supervised_tokens(self.dataset, groups),
            micro=state.micro,
            pad_id=self.job.tokenizer.pad_id,
            chunk=config.memory.loss_chunk,
            multiple=step.width_multiple(config),
            on_retry=lambda micro, level: self._say(
                f"Out of memory at step {state.step}: going on with a micro-batch of {micro} and recomputing "
                f"'{level}', same effective batch."
            ),
        )
        state.level = self.trainable.layers.level
        loss = self.processes.add_up(self.trainable.parameters, loss)
        norm = torch.nn.utils.clip_grad_norm_(self.trainable.parameters, config.optimizer.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.pending.append((state.step, loss, norm))

    def _calibrate(self, measured: tuple[str, float] | None) -> None:
        if measured is not None:
            self._say(measured[0])
            self._status("running", seconds_left=measured[1])

    def _settle(self) -> bool:
        """Fetch the losses since last time; True when all are sound, else the run is rolled back."""
        pending, self.pending = self.pending, []
        if not pending:
            return True
        values = torch.stack([torch.stack((loss, norm.to(loss))) for _, loss, norm in pending]).tolist()
        for (number, *_), (loss, norm) in zip(pending, values, strict=True):
            if self._broken(loss, norm):
                self._roll_back(number, loss)
                return False
            self.state.losses = [*self.state.losses, loss][-self.config.guard.window :]
        measured = self.meter.record(self.state.tokens, len(pending), self.total - self.state.step)
        self.state.seconds += measured.pop("seconds")
        record: dict[str, float] = {
            "step": self.state.step,
            "time": round(time.time(), 3),
            "epoch": round(self.state.epoch + self.state.position / len(self.dataset.train), 4),
            "loss": sum(v[0] for v in values) / len(values),
            "grad_norm": values[-1][1],
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "tokens": self.state.tokens,
            **measured,
            **self.sensor.read(),
        }
        self.metrics.log(record)
        self._status("running", loss=record["loss"], seconds_left=record["seconds_left"])
        return True

    def _broken(self, loss: float, norm: float) -> bool:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        recent, guard = self.state.losses, self.config.guard
        return bool(guard.spike) and len(recent) >= guard.window and loss > guard.spike * sum(recent) / len(recent)

    def _roll_back(self, number: int, loss: float) -> None:
        """Go back to the last checkpoint; the broken step's batch will be left out."""
        skipped, rollbacks = [*self.state.skipped, number], self.state.rollbacks + 1
        if rollbacks > self.config.guard.rollbacks:
            raise Diverged(
                f"Loss {loss:.4g} at step {number}, after {rollbacks - 1} roll-backs. Lower optimizer.lr "
                f"(now {self.config.optimizer.lr:g}), or look at the rows of that step with 'data check'."
            )
        self.saves.restore()
        self.meter.restart(self.state.tokens)
        self.state.skipped, self.state.rollbacks = skipped, rollbacks
        if self.jsonl is not None:
            self.jsonl.forget_after(self.state.step)
        self._say(
            f"Loss {loss:.4g} at step {number}: rolled back to step {self.state.step}, that step's batch is left out."
        )

    def _evaluate(self) -> bool:
        """Measure the held-out loss; True when it is the best so far."""
        state, settings = self.state, self.config.eval
        loss = step.evaluate(
            self.trainable,
            self.dataset,
            micro=state.micro,
            pad_id=self.job.tokenizer.pad_id,
            chunk=self.config.memory.loss_chunk,
            multiple=step.width_multiple(self.config),
        )
        self.metrics.log({"step": state.step, "time": round(time.time(), 3), "eval_loss": loss})
        self._status("running", eval_loss=loss)
        if self.main:
            self.metrics.tell(state.step, self.samples.take(self.trainable, state.step))
        better = state.best_loss is None or loss < state.best_loss - settings.min_delta
        if better:
            state.best_loss, state.best_step, state.bad_evals = loss, state.step, 0
        else:
            state.bad_evals += 1
            if settings.patience and state.bad_evals >= settings.patience:
                state.stopped_early = True
                self._say(f"No better than {state.best_loss:.4f} for {state.bad_evals} evaluations: stopping early.")
        self.meter.restart(state.tokens)  # an evaluation is not training time
        return better

    def _resume(self) -> bool:
        told = self.saves.resume(force=self.job.force_resume)
        for note in told or ():
            self._say(note)
        if told is not None:
            self._say(f"Going on from step {self.state.step} of {self.total}.")
        return told is not None

    def _finish(self) -> None:
        if not self.main:
            return
        peak = self.meter.peak()
        if peak is not None:
            self._say(self.meter.compare(peak))
            self.metrics.log(
                {
                    "step": self.state.step,
                    "time": round(time.time(), 3),
                    "peak_memory_gib": round(peak / GIB, 3),
                    "planned_memory_gib": round(self.meter.planned / GIB, 3),
                }
            )
        source = self.saves.final()
        checkpoint.publish(source, self.job.run / "adapter")
        metrics.plot(metrics.read(self.job.run / "metrics.jsonl"), self.job.run / "loss.png")
        self._status("finished", message=f"adapter of step {source.name.removeprefix('step-').lstrip('0') or '0'}")

    def _status(self, state: str, **values: Any) -> None:
        if self.main:
            before = status.read(self.job.run) or status.Status(state)
            done = self.state.step if hasattr(self, "state") else 0
            kept = status.Status(state, done, self.total, before.loss, before.eval_loss)
            status.write(self.job.run, replace(kept, **values))

    def _say(self, message: str) -> None:
        if self.main:
            say(self.job.run, message)
