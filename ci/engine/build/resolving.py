"""What a Dockerfile cannot say, worked out before it is written: on trees that were pulled, or as archives shipped."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from ci.engine.files import archive
from ci.engine.files.fs import Fs, Held, plain
from ci.engine.files.tree import Blob, Entry, Tree
from ci.engine.values import After, CacheMount, Ran, Step, TreeMount

from . import shipping

if TYPE_CHECKING:
    from .builder import Builder


class Resolver:
    """Of one builder; each file system is worked out once."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._known: dict[str, Fs] = {}

    def files(self, fs: Fs) -> Fs:
        """The same file system with operations that only we can do, done on pulled trees."""
        if fs.static:
            return fs
        known = self._known.get(fs.key)
        if known is not None:
            return known
        if isinstance(fs, archive.Tarball):
            path = self._builder.fresh("image.tar")
            shipping.ship(self._builder, replace(fs.ship, target=str(path)))
            entry = Entry("file", 0o600, blob=Blob(path.stat().st_size, path=path))
            made: Fs = Held(Tree({"container.tar": entry}), "image")
        elif isinstance(fs, Ran):
            made = Ran(self.step(fs.step))
        elif isinstance(fs, After):
            made = After(self.step(fs.step), fs.index)
        else:
            made = self._operation(fs)
        self._known[fs.key] = made
        return made

    def _operation(self, fs: Fs) -> Fs:
        changes: dict[str, Fs] = {}
        for item in fields(fs) if is_dataclass(fs) else ():
            value = getattr(fs, item.name)
            if isinstance(value, Fs):
                resolved = self.files(value)
                if resolved is not value:
                    changes[item.name] = resolved
        made = replace(fs, **changes) if changes else fs  # type: ignore[type-var]
        if made.lowered or made.static:
            return made
        trees = [plain(s, self._builder.trees) if s.static else self._builder.pull(s) for s in made.sources]
        return Held(made.apply(*trees))

    def step(self, step: Step) -> Step:
        """A step on resolved file systems. Its own name, and so its results, stay those of the step asked for."""
        base = self.files(step.base)
        mounts = tuple(self._mount(m) for m in step.mounts)
        if base is step.base and all(a is b for a, b in zip(mounts, step.mounts, strict=True)):
            return step
        made = replace(step, base=base, mounts=mounts)
        made.__dict__["key"] = step.key
        return made

    def _mount(self, mount: Any) -> Any:
        if isinstance(mount, TreeMount):
            fs = self.files(mount.fs)
            return mount if fs is mount.fs else replace(mount, fs=fs)
        if isinstance(mount, CacheMount) and mount.source is not None:
            fs = self.files(mount.source.fs)
            return mount if fs is mount.source.fs else replace(mount, source=replace(mount.source, fs=fs))
        return mount
