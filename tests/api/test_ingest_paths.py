"""What the paths on the command line stand for."""

import subprocess
import sys
from pathlib import Path

import pytest

from api.commands.ingest import read_paths
from indexes.errors import NotThere

ROOT = Path(__file__).resolve().parents[2]
# Root reads everything whatever the permission bits say, and this process has servers at work.
AS_NOBODY = """
import os, shutil, sys, tempfile
from pathlib import Path
from api.commands.ingest import read_paths
from indexes.errors import ChangeRequest

if os.geteuid() == 0:
    os.seteuid(65534)
top = Path(tempfile.mkdtemp())
locked = top / "locked"
(locked / "sub").mkdir(parents=True)
(locked / "a.md").write_text("text")
(locked / "sub" / "b.md").write_text("text")
for below in ("a.md", "*.md", "sub", "sub/*", "s*"):
    given = read_paths([locked / below])
    assert given.files or given.folders, below
    locked.chmod(0)
    try:
        read_paths([locked / below])
    except ChangeRequest as error:
        print(below, error.code, str(locked) in error.message)
    locked.chmod(0o700)
shutil.rmtree(top)
"""


def test_what_lies_below_an_unreadable_folder_is_told_in_our_own_form():
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = [f"{below} path_unreadable True" for below in ("a.md", "*.md", "sub", "sub/*", "s*")]
    assert (done.stdout.splitlines(), done.stderr) == (told, "")


def test_a_folder_below_another_one_that_is_named_is_part_of_it(tmp_path):
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    (tmp_path / "docs" / "sub" / "a.md").write_text("text")
    (tmp_path / "docs" / ".kept").mkdir()
    given = read_paths([tmp_path / "docs" / "sub", tmp_path / "docs", tmp_path / "docs" / ".kept"])
    assert [found.prefix for found in given.folders] == ["docs/", ".kept/"]
    with pytest.raises(NotThere):
        read_paths([tmp_path / "nothing" / "*"])
