"""Pipelines against plain Docker, as ratios measured in one run: a table, and JSON with `--json FILE`.

    python -m benchmarks.bench_pipelines [--rows help,plan,unchanged,source,dependency,size] [--json FILE]

Works on a clone of this repository, so nothing that is edited meanwhile counts. The baseline is `docker buildx build`
of the Dockerfile that `agent-loop dockerfile` writes, on the same builder and the same base: once as a person types
it (`--load`), once with the same promise as ours (times rewritten, then loaded).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
FUNCTION = "build-runtime"
NAME = "al-bench/runtime"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
ADDED = Path(__file__).with_name("added.txt").read_text().splitlines(keepends=True)[1:]
"""Small packages that dependency edits add; each of their combinations is another set of files."""
MOUNTED = "/run/al-bench/ca.pem"
"""Not the system's own place: a package that writes there could not be installed."""


@dataclass(frozen=True)
class Row:
    """A measured case: seconds, or bytes where `unit` says so; `goal` in words."""

    case: str
    ours: float
    baseline: float | None
    what: str
    goal: str
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        return self.ours / self.baseline if self.baseline else None


class Bench:
    """One clone with our command line and an ejected Dockerfile."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.out = folder / "tree", folder / "out"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.tree)], check=True)
        self.env = {**os.environ, "PYTHONPATH": str(self.tree)}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)  # as in a person's shell
        self.required = (self.tree / "requirements" / "service.txt").read_text()

    def agent_loop(self, *words: str) -> str:
        """Run our command line in the clone; what it printed on both streams."""
        command = [sys.executable, "-m", "ci.cli", *words]
        done = subprocess.run(command, cwd=self.tree, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout + done.stderr

    def export(self) -> None:
        self.agent_loop("call", "-s", FUNCTION, "export-image", "--name", f"{NAME}:ours")

    def eject(self) -> list[str]:
        """Write the Dockerfile; the words that build it, with the base that was made here."""
        shutil.rmtree(self.out, ignore_errors=True)
        told = self.agent_loop("dockerfile", FUNCTION, "-o", str(self.out))
        words = shlex.split(next(line for line in told.splitlines() if line.startswith("build it: "))[10:])
        bases = Path(os.environ.get("AGENT_LOOP_CACHE") or Path.home() / ".cache" / "agent-loop") / "bases"
        index = json.loads((bases / "index.json").read_text())
        for line in (self.out / "Dockerfile").read_text().splitlines():
            reference = line.split()[1] if line.startswith("FROM ") else ""
            short = reference.partition("@")[0].removeprefix("docker.io/library/")
            if short in index and f"{reference}=" not in " ".join(words):
                layout = next(p for p in sorted((bases / "python").glob("*")) if (p / "index.json").exists())
                digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
                words[3:3] = ["--build-context", f"{reference}=oci-layout://{layout}@{digest}"]
        if BUNDLE.is_file():  # an intercepting proxy's certificate, which our engine brings into steps by itself
            words[3:3] = trusting(self.out / "Dockerfile", "SSL_CERT_FILE", "ARG UV_SYSTEM_CERTS=1")
        return [*words[:-1], "--provenance=false", words[-1]]

    def plain(self, words: list[str]) -> None:
        """As a person types it."""
        run([*words[:-1], "--load", "--tag", f"{NAME}:plain", words[-1]], self.tree)

    def equal(self, words: list[str]) -> None:
        """With the same promise: times rewritten, then loaded."""
        archive = self.out.parent / "equal.tar"
        output = f"type=docker,dest={archive},rewrite-timestamp=true,compression=uncompressed,force-compression=true"
        more = ["--build-arg", "SOURCE_DATE_EPOCH=0", "--output", output, "--tag", f"{NAME}:equal"]
        run([*words[:-1], *more, words[-1]], self.tree)
        run(["docker", "load", "--quiet", "--input", str(archive)], self.tree)

    def edit_source(self) -> None:
        """Add a line that was in no build before."""
        path = self.tree / "service" / "__main__.py"
        path.write_text(path.read_text() + f"# edit {uuid4()}\n")

    def edit_dependencies(self, added: Sequence[str] = ()) -> None:
        """Require these packages too, or some that hardly a build before had together, so that other files result."""
        path = self.tree / "requirements" / "service.txt"
        path.write_text(self.required + "".join(added or random.sample(ADDED, len(ADDED) // 2)))


def trusting(file: Path, variable: str, more: str = "") -> tuple[str, str]:
    """Let every step of a Dockerfile trust what this machine trusts; the words that `buildx build` needs for it."""
    lines = "\n".join(filter(None, [more, f"ARG {variable}={MOUNTED}"]))
    text = re.sub(r"(?m)^(FROM .*)$", rf"\1\n{lines}", file.read_text())
    file.write_text(re.sub(r"(?m)^RUN ", f"RUN --mount=type=secret,id=ca,target={MOUNTED},mode=0444 ", text))
    return "--secret", f"id=ca,src={BUNDLE}"


def run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words[:4])} … ended with {done.returncode}:\n{done.stderr[-2000:]}")


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """The median of several runs."""
    taken: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def edited(edit: Callable[[], None], prepare: Callable[[], T], work: Callable[[T], None], times: int = 3) -> float:
    """The median of several runs of `work`, each after an edit and what `prepare` makes of it."""
    taken: list[float] = []
    for _ in range(times):
        edit()
        made = prepare()
        taken.append(seconds(lambda made=made: work(made), 1))
    return statistics.median(taken)


def measure(bench: Bench, rows: list[str]) -> Iterator[Row]:
    """The rows that were asked for, in the table's order, each when it is measured."""
    imported = seconds(lambda: run([sys.executable, "-c", "import dagger"], bench.tree))
    if "help" in rows:
        yield Row("--help", seconds(lambda: bench.agent_loop("--help")), None, "", "<= 0.3 s")
    if "plan" in rows:
        bench.agent_loop("plan", FUNCTION)
        took = seconds(lambda: bench.agent_loop("plan", FUNCTION))
        yield Row("plan", took, imported, "import dagger", "<= import + 0.5 s")
    if "unchanged" in rows:
        bench.export()
        words = bench.eject()
        bench.plain(words)
        ours, plain = seconds(bench.export), seconds(lambda: bench.plain(words))
        yield Row("unchanged", ours, plain + imported, "build + import dagger", "<= that + 0.3 s")
    for case, edit, goal in (
        ("source", bench.edit_source, "<= 1.2x + 0.7 s"),
        ("dependency", bench.edit_dependencies, "<= 1.1x"),
    ):
        if case in rows:
            if case == "dependency":
                bench.edit_dependencies(ADDED)  # so that all of them are in the installer's cache
            bench.export()
            before = layers(f"{NAME}:ours")
            ours = edited(edit, lambda: None, lambda _: bench.export())
            if case == "source":
                new = [layer for layer in layers(f"{NAME}:ours") if layer not in before]
                what = f"{len(new)} new; its files in a tar"
                unpacked, pushed = layer_sizes(f"{NAME}:ours", new)
                yield Row("layer", pushed / 1e6, unpacked / 1e6, what, "one, <= 1 MB as it is pushed", "MB")
            plain = edited(edit, bench.eject, bench.plain)
            equal = edited(edit, bench.eject, bench.equal, times=1)
            yield Row(case, ours, equal, "same output", goal)
            yield Row(case, ours, plain, "--load, times left", goal)
    if "size" in rows:
        yield _size(bench)


def _size(bench: Bench) -> Row:
    """Layers above the base: ours against the service installed with pip on the same base."""
    bench.export()
    base = next(w for w in bench.eject() if "=oci-layout://" in w)
    folder = bench.out.parent / "pip"
    folder.mkdir()
    shutil.copy(bench.tree / "requirements" / "service.txt", folder)
    shutil.copytree(bench.tree / "service", folder / "service")
    (folder / "Dockerfile").write_text(
        f"FROM {base.partition('=oci-layout')[0]}\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends python3-pip libgomp1\n"
        "COPY service.txt /app/\n"
        "RUN pip install --break-system-packages --ignore-installed --require-hashes -r /app/service.txt\n"
        "COPY service /app/service\n"
    )
    trust = trusting(folder / "Dockerfile", "PIP_CERT") if BUNDLE.is_file() else ()
    words = ["docker", "buildx", "build", "--build-context", base, "--provenance=false", "--load"]
    run([*words, *trust, "--tag", f"{NAME}:pip", str(folder)], bench.tree)
    sizes = [layers_above_base(f"{NAME}:{tag}") for tag in ("ours", "pip")]
    return Row("size", sizes[0] / 1e6, sizes[1] / 1e6, "pip install on the same base", "<= 0.85x", "MB")


def layers(name: str) -> list[str]:
    """Digests of an image's uncompressed layers, from the base up."""
    words = ["docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", name]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)


def layer_sizes(name: str, digests: list[str]) -> tuple[int, int]:
    """Bytes of these layers as they are stored, and as gzip makes them for a registry."""
    stored = pushed = 0
    with tempfile.TemporaryFile() as saved:
        subprocess.run(["docker", "save", name], check=True, stdout=saved)
        saved.seek(0)
        with tarfile.open(fileobj=saved) as archive:
            for digest in digests:
                layer = archive.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
                assert layer is not None, "Docker's containerd store saves a layer under its digest"
                content = layer.read()
                stored, pushed = stored + len(content), pushed + len(gzip.compress(content, 6))
    return stored, pushed


def layers_above_base(name: str) -> int:
    """Bytes of an image's layers but the first, as `docker history` counts them."""
    told = subprocess.run(
        ["docker", "history", "--human=false", "--format", "{{.Size}}", name],
        check=True,
        capture_output=True,
        text=True,
    )
    sizes = [int(line) for line in told.stdout.split() if int(line)]
    return sum(sizes[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="help,plan,unchanged,source,dependency,size", help="comma-separated")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    print(f"{'case':<12}{'ours':>10}{'baseline':>10}{'ratio':>8}  goal, baseline")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="al-bench-") as folder:
        for row in measure(Bench(Path(folder)), given.rows.split(",")):
            rows.append(row)
            base = f"{row.baseline:.2f}" if row.baseline is not None else ""
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
            line = f"{row.case:<12}{row.ours:>8.2f} {row.unit:<2}{base:>9}{ratio:>8}  {row.goal}; {row.what}"
            print(line, flush=True)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.json:
        figures = [{**asdict(row), "ratio": row.ratio} for row in rows]
        given.json.write_text(json.dumps({"load": os.getloadavg()[0], "rows": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
