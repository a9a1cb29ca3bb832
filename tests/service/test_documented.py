"""The service's pages say what the code does."""

from __future__ import annotations

import re

import pytest

from service.settings import PREFIX, Settings
from tests.service import documented


@pytest.mark.parametrize("page", sorted(documented.PARTS))
def test_generated_parts_are_up_to_date(page: str) -> None:
    """After a change `python -m tests.service.documented` has been run."""
    assert (documented.ROOT / page).read_text() == documented.rendered(page)


def test_every_setting_is_explained() -> None:
    """Each field of the settings has its row and its sentence."""
    table = documented.settings_table()
    for name in Settings.model_fields:
        assert re.search(rf"^\| `{PREFIX}{name.upper()}` \| .* \| \S.* \|$", table, re.MULTILINE), name


def test_every_fault_has_its_proof() -> None:
    """F01 to F22 without a gap, each with a claim from a test that exists."""
    numbers = [int(each) for fault in documented.FAULTS for each in re.findall(r"F(\d+)", fault.id)]
    assert numbers == list(range(1, 23))
    for fault in documented.FAULTS:
        assert all(documented.claim(test) for test in fault.tests), fault.id


@pytest.mark.parametrize("page", ["docs/service.md", "docs/faults.md", "docs/evals.md", "docs/performance.md"])
def test_variables_and_commands_on_the_pages_exist(page: str) -> None:
    """No page names a setting that is none."""
    text = (documented.ROOT / page).read_text()
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {f"{PREFIX}URL"}
    named = {each.removesuffix("_FILE") for each in re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", text)}
    assert named <= known
