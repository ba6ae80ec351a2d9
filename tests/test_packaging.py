"""What `pip install` brings: every file that the package reads at run time."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
READ_BY_PEOPLE = {"README.md"}


def test_every_data_file_is_packaged():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaged: set[Path] = set()
    for package, patterns in table["tool"]["setuptools"]["package-data"].items():
        folder = ROOT / "src" / Path(*package.split("."))
        for pattern in patterns:
            found = set(folder.glob(pattern))
            assert found, f"{package}: nothing is named {pattern}"
            packaged |= {path.resolve() for path in found}
    package = ROOT / "src" / "covta"
    sources = [package, *(path for path in package.iterdir() if path.is_symlink())]
    present = {
        path.resolve()
        for folder in sources
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".py"
        and "__pycache__" not in path.parts
        and path.name not in READ_BY_PEOPLE
    }
    assert len(present) > 20
    assert present == packaged
