"""Python blocks of the tutorials are run; what follows `>>>` is compared with what it prints."""

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.md"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_says_what_happens(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what it writes
    document = Sybil(parsers=[PythonCodeBlockParser()], path=str(FOLDER)).parse(path)
    examples = list(document.examples())
    assert examples
    for example in examples:
        example.evaluate()
