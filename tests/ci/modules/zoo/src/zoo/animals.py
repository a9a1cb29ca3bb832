"""Types of the module in a file of their own."""

import enum
from typing import Self

import dagger
from dagger import dag, enum_type, field, function, object_type


@enum_type
class Diet(enum.Enum):
    """What an animal eats."""

    MEAT = "meat"
    PLANTS = "plants"


@object_type
class Food:
    """A meal."""

    name: str = field()
    grams: int = field(default=5)


@object_type
class Animal:
    """An animal with what it remembers."""

    name: str = field()
    diet: Diet = field(default=Diet.PLANTS)
    meals: list[Food] = field(default=list)
    best: Food | None = field(default=None)
    home: dagger.Directory | None = field(default=None)
    mood: str = "calm"

    @function
    def feed(self, name: str, grams: int = 5) -> Self:
        """Give it a meal."""
        self.meals.append(Food(name=name, grams=grams))
        self.best = max(self.meals, key=lambda meal: meal.grams)
        self.mood += "!"
        return self

    @function
    def feeling(self) -> str:
        """What it keeps to itself."""
        return self.mood

    @function
    def papers(self) -> list[dagger.File]:
        """Two files."""
        return [dag.file("birth", f"{self.name} was born"), dag.file("trip", "far")]
