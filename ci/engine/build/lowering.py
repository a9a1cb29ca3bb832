"""File systems to a Dockerfile: what can be asked of one.

`Lowering` takes expressions that rest on images and steps. Its layers: `stages` (which stages there are), `sources`
(where files come from), `edits` (changes to files), `runs` (steps). What is known here goes in as build contexts. Two
dialects: for the engine (steps run under our script, with results), and `plain` for people (`agent-loop
dockerfile`), which uses nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from ci.engine.errors import FieldError, Unsupported
from ci.engine.files.changes import Copy, Link, Make, MakeDir, Own, Remove, Stamp
from ci.engine.files.fs import Fs, Image, Pick, Sub, plain
from ci.engine.files.tree import Blob, Entry, Tree
from ci.engine.values import After, Container, Ran, Step

from .configuration import State, configuration
from .dockerfile import Context, Stage, mount, paths, words
from .runs import GPU, Runs
from .text import TOOLS, edit, folder, short

NOTHING = "/.al-non[e]"
"""A pattern that matches nothing: copying it makes a stage be built and brings nothing."""

MOUNTED = 30
"""From how many layers a stage can be mounted: what names them must fit a page of memory, which ends at some 40, and
the base image has some as well."""


class Lowering(Runs):
    """One Dockerfile in the making."""

    def image(self, container: Container) -> str:
        """The stage of a container as an image: its files and all of its configuration."""
        if container.extra.get("gpus") and not self.plain:
            raise FieldError(GPU)
        if container.fs.key not in self._uses:
            self.want(container.fs)
        base = self._stage_of(container.fs)
        stage = Stage(self._name("image"), base.name)
        self.stages.append(stage)
        stage.lines += configuration(container, self._states.get(container.fs.key, State()))
        return stage.name

    def outcome(self, step: Step) -> str:
        """A stage whose folder `/.al-r` holds a step's results.

        It continues from the step's own stage, which orders the two without hashing any content. The cache mount's
        id is an argument too: BuildKit leaves it out of what tells steps apart.
        """
        ran = Ran(step)
        stage = Stage(self._name("results"), self.target(ran))
        if self._states[ran.key].user:
            stage.lines.append("USER 0:0")
        stage.lines.append(f"RUN --network=none {TOOLS} {self._out(step)} {edit('', 'results', self._id(step))}")
        self.stages.append(stage)
        return stage.name

    def left(self, step: Step, nonce: str) -> str:
        """As `outcome`, but of a step that failed: nothing runs it, what it left is read."""
        stage = Stage(self._name("results"), "scratch")
        stage.lines.append(f"RUN --network=none {TOOLS} {self._out(step)} {edit('', 'results', nonce)}")
        self.stages.append(stage)
        return stage.name

    def probe(self, fs: Fs, asks: Sequence[str]) -> str:
        """A stage whose folder `/.al-answers` has the answers of `tools/probe.sh`."""
        source = self._mountable(self.target(fs))
        stage = Stage(self._name("probe"), "scratch")
        text = "".join(f"{a}\n" for a in asks)
        at = f"asks/{short(text)}"
        self.files[at] = Tree({"asks": Entry("file", 0o644, blob=Blob.of(text.encode()))})
        asked = mount(type="bind", source=at, target="/.al/step")
        seen = mount(type="bind", from_=source, source="/", target="/.al/root")
        stage.lines.append(f'RUN --network=none {TOOLS} {asked} {seen} ["/.al/bin/busybox", "sh", "/.al/bin/probe.sh"]')
        self.stages.append(stage)
        return stage.name

    def _mountable(self, name: str) -> str:
        """The stage itself, or if it has many layers one with the same files in one: see MOUNTED."""
        by_name, layers, base = {s.name: s for s in self.stages}, 0, name
        while base in by_name:
            layers += sum(line.startswith(("COPY", "RUN", "WORKDIR")) for line in by_name[base].lines)
            base = by_name[base].base
        if layers <= MOUNTED:
            return name
        whole = self._new()
        whole.lines.append(f"COPY --from={name} {paths('/', '/')}")
        return whole.name

    def collect(self, parts: Sequence[tuple[str, str]]) -> str:
        """The last stage: `parts` are stages and the folder of each that is wanted, laid into /0, /1, ..."""
        stage = Stage(self._name("answers"), "scratch")
        for number, (name, wanted) in enumerate(parts):
            source = words([NOTHING, f"/{number}/"]) if wanted == NOTHING else paths(wanted, f"/{number}/")
            stage.lines.append(f"COPY --from={name} {source}")
        self.stages.append(stage)
        return stage.name

    def _lower(self, fs: Fs) -> Stage:
        if fs.static:
            stage = self._new()
            tree = plain(fs, self.session.builder.trees)
            if tree.entries.keys() != {""}:
                self._copy_tree(stage, tree, "/")
            return stage
        match fs:
            case Image():
                return self._image(fs)
            case Ran():
                return self._ran(fs)
            case After():
                return self._after(fs)
            case Sub():
                stage = self._new()
                stage.lines.append(f"COPY --from={self._refs[fs.base.key].name} {paths(folder(fs.path), '/')}")
                return stage
            case Pick():
                stage = self._new()
                source = self._refs[fs.base.key].name
                stage.lines.append(f"COPY --from={source} {paths('/' + fs.path, '/' + fs.name)}")
                return stage
            case Make() | MakeDir() | Copy() | Remove() | Link() | Stamp() | Own():
                return self._operation(fs)
            case _:
                raise Unsupported(
                    f"{type(fs).__name__} of files that are not built yet, in a Dockerfile",
                    "Build it with 'agent-loop call' or on a Dagger engine.",
                )

    def _image(self, fs: Image) -> Stage:
        foreign = fs.platform if fs.platform != self.session.builder.platform else ""
        reference = fs.reference
        if fs.context:
            if self.plain:
                reference = fs.address or fs.reference
                note = f"{reference} is a base image made here; a plain build takes it from its registry."
                if note not in self.notes:
                    self.notes.append(note)
            else:
                reference = f"base-{short(fs.key)}"
                self.contexts[reference] = Context(reference, address=fs.context)
        stage = self._new(reference, platform=foreign)
        config = self.session.images.of(fs).config
        env = tuple((n, v) for n, _, v in (e.partition("=") for e in config.get("Env") or []))
        self._states[fs.key] = State(env, config.get("User") or "", config.get("WorkingDir") or "")
        return stage
