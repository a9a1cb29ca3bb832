"""From a person's file to token rows: reader, formats, chat template and mask, packing, preview, check."""

from pathlib import Path

EXAMPLES = Path(__file__).parent / "examples" / "chats.jsonl"
"""The default `--data`: short chats about this project (64 rows, our own text)."""
