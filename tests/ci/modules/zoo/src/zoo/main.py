"""The main object."""

from importlib import import_module
from typing import Annotated, Protocol, Self

import anyio
import dagger
from dagger import DefaultPath, Doc, Ignore, Name, dag, field, function, interface, object_type

from .animals import Animal, Diet, Food

Data = Annotated[dagger.Directory, DefaultPath("data"), Ignore(["skipped*"]), Doc("what the animals live on")]


@interface
class Noisy(Protocol):
    """Anything with a voice."""

    @function
    async def noise(self) -> str: ...


@object_type
class Zoo:
    """A zoo."""

    source: Data = field()
    tags: list[str] = field(default=list)
    made: str = field(init=False, default="")

    @classmethod
    async def create(cls, source: Data, tags: list[str] = ()) -> Self:  # type: ignore[assignment]
        """Look at what is there."""
        self = cls(source=source, tags=list(tags))
        self.made = ",".join(await source.entries())
        return self

    @function
    def animal(self, name: str, diet: Diet = Diet.MEAT) -> Animal:
        """One animal."""
        return Animal(name=name, diet=diet, home=self.source)

    @function
    def animals(self, n: int = 2) -> list[Animal]:
        """Several, each with a meal."""
        return [Animal(name=f"a{i}", meals=[Food(name="hay", grams=i)]) for i in range(n)]

    @function
    def maybe(self, there: bool = False) -> Animal | None:
        """One or none."""
        return Animal(name="x") if there else None

    @function
    def diets(self) -> list[Diet]:
        """All that is eaten."""
        return list(Diet)

    @function(cache="never")  # type: ignore[call-overload]  # its overloads do not know it
    def nothing(self) -> None:
        """No result."""

    @function(name="renamed", doc="Given by hand.", cache="10m")  # type: ignore[call-overload]
    def original(self, from_: Annotated[str, Name("from")] = "here") -> str:
        """Not shown."""
        return from_

    @function
    def myself(self) -> Self:
        """The same zoo with one more tag."""
        self.tags = [*self.tags, "more"]
        return self

    @function
    def cage(self) -> dagger.Container:
        """A container without files."""
        return dag.container().with_env_variable("A", "1").with_env_variable("B", "2").with_label("k", "v")

    @function
    async def gathered(self, n: int = 30) -> int:
        """Many questions at once."""
        sizes: list[int] = []

        async def ask(i: int) -> None:
            sizes.append(await dag.directory().with_new_file(f"f{i}", "x" * i).file(f"f{i}").size())

        async with anyio.create_task_group() as group:
            for i in range(n):
                group.start_soon(ask, i)
        return sum(sizes)

    @function
    async def caught(self) -> str:
        """An error of the session is one of dagger's own."""
        try:
            return await dag.directory().file("none").contents()
        except dagger.QueryError as error:
            return f"{error} at {error.errors[0].path}"

    @function
    def keepers(self) -> list[str]:
        """Imports what dagger does without, which is not there less for that."""
        return [import_module(name).__name__ for name in ("dagger.provisioning", "httpx._main")]

    @function
    def noise_of(self, who: Noisy) -> str:
        """Takes an interface, which no word can name."""
        return str(who)

    @function
    def plug(self, socket: dagger.Socket, repository: dagger.GitRepository) -> str:
        """Takes what only Dagger's engine has."""
        return f"{socket} {repository}"
