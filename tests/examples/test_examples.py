"""What the page of the examples says of each program."""

import re

import pytest
from example_programs import EXAMPLES, command, docstring

PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_docstring_and_the_table_tell_how_to_run_a_program(name: str) -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"`{command(name)}`" in readme
    sandbox = re.search(r"``(nxotp sandbox.*?)``", docstring(name))
    assert sandbox is not None
    assert f"`{sandbox[1]}`" in readme


def test_the_table_lists_every_file_and_no_other() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\[`([\w.]+)`\]\(\1\)", readme))
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
