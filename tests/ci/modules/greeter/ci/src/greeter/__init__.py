"""A module without images: plain values, own types, files. Nothing here needs BuildKit until a file is read."""

import enum
from typing import Annotated

import dagger
from dagger import DefaultPath, Doc, Ignore, check, dag, enum_type, field, function, object_type


@enum_type
class Tone(enum.Enum):
    """How it sounds."""

    WARM = "warm"
    FORMAL = "formal"


@object_type
class Card:
    """A greeting on paper."""

    text: str = field()
    copies: int = field(default=1)
    paper: dagger.File | None = field(default=None)
    author: str = "nobody"

    @function
    def signed(self, name: str) -> "Card":
        """The same card with a signature."""
        return Card(text=f"{self.text}\n{name}", copies=self.copies, author=name)

    @function
    def by(self) -> str:
        """Who signed it, which only the module knows."""
        return self.author


@object_type
class Greeter:
    """Greets in one of two tones."""

    tone: Annotated[Tone, Doc("how it sounds")] = field(default=Tone.WARM)
    counted: int = 0

    @function
    def greet(self, name: Annotated[str, Doc("whom to greet")], times: int = 1) -> str:
        """One line for somebody."""
        word = "Hello" if self.tone is Tone.WARM else "Good day"
        return ", ".join([f"{word} {name}"] * times)

    @function
    def cards(self, names: list[str]) -> list[Card]:
        """A card for each."""
        return [Card(text=self.greet(name), paper=dag.directory().with_new_file("p", name).file("p")) for name in names]

    @function
    async def sources(
        self, source: Annotated[dagger.Directory, DefaultPath("/"), Ignore(["**", "!app/**"])]
    ) -> list[str]:
        """The application's files."""
        return await source.glob("**")

    @function
    def folder(self, name: str = "out") -> dagger.Directory:
        """Two files."""
        return dag.directory().with_new_file(f"{name}.txt", f"{name}\n").with_new_file("sub/empty", "")

    @function
    async def measure(self, token: dagger.Secret) -> int:
        """How long a secret is."""
        return len(await token.plaintext())

    @function
    def stumble(self, at: str = "the step") -> str:
        """Raises."""
        raise ValueError(f"stumbled over {at}")

    @check
    @function
    def polite(self) -> None:
        """Greets by name."""
        if "you" not in self.greet("you"):
            raise ValueError("not polite")

    @function
    @check
    def grumpy(self) -> None:
        """Never passes."""
        raise ValueError("grumpy as ever")
