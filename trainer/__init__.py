"""QLoRA fine-tuning on one card: plan, train, resume exactly, export and prove the export."""
