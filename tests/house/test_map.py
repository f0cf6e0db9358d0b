"""docs/map.md has the first line of each package's docstring, and docs/map.svg has a box for each package."""

from __future__ import annotations

import ast
import re

from tests.house.test_floors import FLOORS
from tests.house.test_imports import ROOT
from tests.support.map_picture import PATH, PICTURE, TOPS, picture

ROW = re.compile(r"\| (\d) \| `([a-z_/]+?)(?:/|\.py)` \| (.*) \|")


def test_the_map_says_of_each_package_what_it_says_of_itself() -> None:
    wanted = {}
    for top, floors in FLOORS.items():
        for number, floor in enumerate(floors):
            for name in floor:
                place = ROOT / top / name
                path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
                docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
                wanted[f"{top}/{name}"] = (number, docstring.partition("\n")[0])
    rows = ROW.findall((ROOT / "docs" / "map.md").read_text())
    assert {where: (int(number), words) for number, where, words in rows} == wanted


def test_the_picture_is_drawn_from_the_floors() -> None:
    assert picture() == PICTURE.read_text(), "run python -m tests.support.map_picture"
    assert set(PATH) <= {f"{top}/{name}" for top in TOPS for floor in FLOORS[top] for name in floor}
    assert set(TOPS) == set(FLOORS)
