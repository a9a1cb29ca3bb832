"""QLoRA fine-tuning on one card: plan, train, resume exactly, export and prove the export.

    python -m trainer train --model gemma-2b --data chats.jsonl --output runs --run-id first

A run is a folder, `RUN` = `OUTPUT/RUN_ID`:

    RUN/config.json        the resolved configuration, and where each value came from
    RUN/base/              the base model, only where the trainer makes it itself (preset `tiny`)
    RUN/adapter/           the trained adapter as PEFT reads it (fp32 safetensors), written at the end
    RUN/checkpoints/       step-0000120/, the newest few and the best; `latest` names the newest
    RUN/metrics.jsonl      one record a logged step or evaluation
    RUN/samples.jsonl      what the model answered to held-out prompts at each evaluation
    RUN/status.json        what the run is doing, for `train-status` and `train-stop`
    RUN/train.log          structured log, one JSON object a line
    RUN/loss.png           the loss as a picture, written at the end
    RUN/export/            what `export` makes

Who does what: `config` and `presets` decide, `data` prepares, `plan` predicts from `shape`, `model` loads, `loop`
trains, `step` does one optimizer step, `recompute` sets what layers keep for it, `checkpoint` keeps, `metrics` and
`trackers` tell, `export` ships.
Nothing here imports torch at import time; `--help`, `--dry-run` and `data check` never do.
"""
