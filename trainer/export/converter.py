"""A program: llama.cpp's converter, told what to call a way of splitting text that it does not recognise.

    python converter.py FOLDER NAME --check MODEL             exit status 0 if it knows MODEL's tokenizer
    python converter.py FOLDER NAME MODEL --outfile ...       convert_hf_to_gguf.py's own words

FOLDER holds the converter; NAME is `splitting.name`, empty for none. Runs by its path, apart from this package, because
the converter brings a `gguf` of its own.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, name: str, words: list[str]) -> None:
    """Convert or check. Raises what the converter raises."""
    sys.path[0:1] = [str(folder), str(folder / "gguf-py")]
    from conversion.base import TextModel  # pyright: ignore[reportMissingImports]

    recognise: Any = TextModel.get_vocab_base_pre

    def named(model: Any, tokenizer: Any) -> str:
        try:
            return recognise(model, tokenizer)
        except NotImplementedError:  # what the converter raises where it has no name for a tokenizer
            if not name:
                raise
            return name

    if words[0] == "--check":
        from transformers import AutoTokenizer

        named(None, AutoTokenizer.from_pretrained(words[1]))
        return
    TextModel.get_vocab_base_pre = named
    sys.argv = ["convert_hf_to_gguf.py", *words]
    runpy.run_path(str(folder / sys.argv[0]), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
