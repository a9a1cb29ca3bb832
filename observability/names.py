"""Every metric that this package exports itself: GPU monitor, training bridge, backup, drift, probes.

The service's names live with the service (`service/telemetry/names.py`). Rules, dashboards and their tests may use
these two lists and the names of the exporters in `tests/fakes/exporters.py`, nothing else; a test says so.
Ratios run from 0 to 1, times are seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: its name as queries spell it, its type, its help text and its labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


# --- GPU monitor, one sample a second (`gpu_monitor/`)
_GPU = ("gpu", "uuid", "model")
GPU_UP = Metric("gpu_up", "gauge", "1 when at least one NVIDIA GPU answered the last sample, else 0.")
GPU_UTILIZATION = Metric("gpu_utilization_ratio", "gauge", "Share of time a kernel ran.", _GPU)
GPU_MEMORY_USED = Metric("gpu_memory_used_bytes", "gauge", "Memory in use.", _GPU)
GPU_MEMORY_TOTAL = Metric("gpu_memory_total_bytes", "gauge", "Memory of the card.", _GPU)
GPU_POWER = Metric("gpu_power_watts", "gauge", "Power drawn.", _GPU)
GPU_POWER_LIMIT = Metric("gpu_power_limit_watts", "gauge", "Power the card may draw.", _GPU)
GPU_TEMPERATURE = Metric("gpu_temperature_celsius", "gauge", "Temperature of the chip.", _GPU)
GPU_CLOCK = Metric("gpu_sm_clock_hertz", "gauge", "Clock of the multiprocessors.", _GPU)
GPU_ECC = Metric("gpu_ecc_uncorrected_errors_total", "counter", "Uncorrected memory errors.", _GPU)
GPU_XID = Metric("gpu_xid_errors_total", "counter", "Driver error events (XID).", ("gpu", "xid"))

# --- Training bridge: what the trainer writes to its run folder, as series (`gpu_monitor/training.py`)
TRAINING_RUNNING = Metric("training_running", "gauge", "1 while a run's metrics file grows, else 0.")
TRAINING_STEP = Metric("training_step", "gauge", "Optimizer steps done.", ("run",))
TRAINING_LOSS = Metric("training_loss", "gauge", "Loss of the last logged step.", ("run",))
TRAINING_STEP_SECONDS = Metric("training_step_seconds", "gauge", "Duration of the last logged step.", ("run",))
TRAINING_TOKENS = Metric("training_tokens_per_second", "gauge", "Throughput of the last logged step.", ("run",))
TRAINING_CHECKPOINT = Metric(
    "training_last_checkpoint_timestamp_seconds", "gauge", "When the newest checkpoint was complete.", ("run",)
)

# --- Backup (`backup/`)
BACKUP_LAST_SUCCESS = Metric(
    "backup_last_success_timestamp_seconds", "gauge", "When the last backup was made and verified.", ("what",)
)
BACKUP_FAILURES = Metric("backup_failures_total", "counter", "Backups that failed, verification included.", ("what",))
BACKUP_DURATION = Metric("backup_duration_seconds", "gauge", "How long the last backup took.", ("what",))
BACKUP_BYTES = Metric("backup_size_bytes", "gauge", "Size of what the last backup holds.", ("what",))
BACKUP_SNAPSHOTS = Metric("backup_snapshots", "gauge", "Backups kept.", ("what",))

# --- Drift and probes (`drift/`)
DRIFT_SCORE = Metric(
    "agent_loop_drift_score", "gauge", "Distance of the last window from the reference.", ("feature", "method")
)
DRIFT_LEVEL = Metric(
    "agent_loop_drift_level", "gauge", "Verdict of a feature: 0 stable, 1 watch, 2 drifted.", ("feature",)
)
DRIFT_SAMPLES = Metric("agent_loop_drift_samples", "gauge", "Rows compared.", ("set",))
DRIFT_SUFFICIENT = Metric("agent_loop_drift_sufficient", "gauge", "1 when both sets have enough rows to judge.")
DRIFT_LAST_RUN = Metric(
    "agent_loop_drift_last_run_timestamp_seconds", "gauge", "When the drift job last came to its end."
)
PROBE_LAST_SUCCESS = Metric(
    "agent_loop_probe_last_success_timestamp_seconds", "gauge", "When a synthetic prompt was last answered."
)
PROBE_FAILURES = Metric("agent_loop_probe_failures_total", "counter", "Synthetic prompts that got no answer.")
PROBE_SECONDS = Metric("agent_loop_probe_duration_seconds", "gauge", "Duration of the last synthetic prompt.")
PROBE_CHANGED = Metric(
    "agent_loop_probe_changed_ratio", "gauge", "Share of the fixed prompts answered otherwise than in the reference."
)
TLS_EXPIRY = Metric(
    "agent_loop_tls_expiry_timestamp_seconds", "gauge", "End of validity of the public certificate.", ("server",)
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order of this file."""
