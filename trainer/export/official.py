"""llama.cpp's own converter, for architectures that our writer does not know.

    convert(model, path, kind)

It comes in the source distribution of `llama-cpp-python`, fetched once by the ordinary pip client with its hash
pinned, and unpacked into the cache: never built, never part of this repository. Our own writer is the default
because it needs no 76 MB download and reads the files that transformers 5 writes; the two are compared in a test
(docs/export.md). Q4_K_M is out of its reach: it has no quantiser.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import splitting
from .errors import ExportError, UnsupportedExport
from .quantise import Kind

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PARTS = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py", "LICENSE")


def home() -> Path:
    """Where the converter is kept (`AGENT_LOOP_CACHE`, by default the user's cache folder)."""
    cache = os.environ.get("AGENT_LOOP_CACHE") or str(Path.home() / ".cache" / "agent-loop")
    return Path(cache) / f"llama.cpp-{VERSION}"


def check(kinds: Iterable[Kind], model: Path) -> None:
    """Refuse what it cannot make of the folder `model`. Raises UnsupportedExport."""
    if Kind.Q4_K_M in kinds:
        raise UnsupportedExport(
            "The official converter cannot make Q4_K_M. Export f16 with it, then: ollama create NAME -q q4_K_M."
        )
    if (
        splitting.is_byte_pair(model)
        and splitting.name(model) is None
        and _run(model, "--check", str(model)).returncode
    ):
        raise UnsupportedExport(
            f"llama.cpp does not know how this tokenizer splits text, {model} (pre_tokenizer of tokenizer.json). It "
            "knows published tokenizers as they are, and any that splits as Llama 3 or Qwen 2 do. Train such a model, "
            "or serve this one with another program."
        )


def convert(model: Path, path: Path, kind: Kind) -> Path:
    """Convert the model folder `model` to `path`. Raises UnsupportedExport or ExportError."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _run(model, str(model), "--outfile", str(part), "--outtype", kind.value)
    if done.returncode != 0:
        part.unlink(missing_ok=True)
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"The official converter failed, {model}: {reason}")
    return part.replace(path)


def _run(model: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = Path(__file__).with_name("converter.py")
    named = [sys.executable, str(program), str(fetch()), splitting.name(model) or ""]
    return subprocess.run([*named, *words], capture_output=True, text=True, check=False)


def fetch() -> Path:
    """The converter's folder, downloaded if it is not there. Raises ExportError without a way to a package index."""
    target = home()
    if (target / PARTS[0]).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        _download(work)
        unpacked = work / "unpacked"
        _unpack(next(work.glob("*.tar.gz")), unpacked)
        shutil.rmtree(target, ignore_errors=True)
        unpacked.replace(target)
    return target


def _download(folder: Path) -> None:
    """Let pip fetch and check the archive; it reads the archive's metadata but builds nothing."""
    pinned = folder / "requirements.txt"
    pinned.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n")
    asked = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--only-binary", "scikit-build-core"]
    words = [*asked, "--require-hashes", "--requirement", str(pinned), "--dest", str(folder)]
    done = subprocess.run([*_pip(), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "no message")
        raise ExportError(
            f"Cannot download llama.cpp's converter (llama-cpp-python {VERSION}): {reason}. "
            f"Do it once where a package index can be reached, and copy {home()}."
        )


def _pip() -> list[str]:
    """pip of this environment, or one that uv runs beside it."""
    import importlib.util

    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    if uv:
        return [uv, "tool", "run", "--python", sys.executable, "pip"]
    raise ExportError("No pip and no uv here to download llama.cpp's converter with. Install one of them.")


def _unpack(archive: Path, target: Path) -> None:
    inside = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
    with tarfile.open(archive) as packed:
        for member in packed:
            short = member.name.removeprefix(inside)
            if short != member.name and short.split("/")[0] in PARTS:
                member.name = short
                packed.extract(member, target, filter="data")
