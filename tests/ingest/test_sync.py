"""A folder against what a store holds of it: what is added, replaced, removed, and above all what is not."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from indexes.errors import ChangeRequest, NotThere
from ingest.sync import Scan, ScannedFile, Skipped, place_below, plan, scan, scan_file

NOBODY = 65534


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "docs"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "a.md").write_text("alpha")
    (top / "sub" / "b ü.md").write_text("beta")
    (top / "sub" / "deep" / "a.md").write_text("alpha")
    return top


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def stored_as_scanned(found):
    return {file.source: file.sha256 for file in found.files}


def test_sources_begin_with_the_folders_own_name_from_wherever_it_is_called(folder, monkeypatch):
    expected = {"docs/a.md": sha("alpha"), "docs/sub/b ü.md": sha("beta"), "docs/sub/deep/a.md": sha("alpha")}
    monkeypatch.chdir(folder / "sub")
    for name in (folder, Path(".."), Path("../../docs/"), folder / "sub" / ".."):
        found = scan(name)
        assert found.prefix == "docs/"
        assert stored_as_scanned(found) == expected
    assert [file.bytes for file in found.files] == [5, 4, 5]


def test_hidden_files_and_folders_are_counted_and_left_out(folder):
    (folder / ".secret").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    found = scan(folder)
    assert found.hidden == 2
    assert len(found.files) == 3


def test_links_never_lead_outside(folder, tmp_path):
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "docs-too").mkdir()
    (tmp_path / "docs-too" / "x.md").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "folder").symlink_to(tmp_path / "docs-too")
    (folder / "inside.md").symlink_to(folder / "a.md")
    (folder / "loop").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "broken").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")
    found = scan(folder)
    assert sha("secret") not in stored_as_scanned(found).values()
    assert stored_as_scanned(found)["docs/inside.md"] == sha("alpha")
    assert len(found.files) == 4
    assert {link.source for link in found.links} == {"docs/link.txt", "docs/folder", "docs/loop", "docs/pipe"}
    assert {skipped.source for skipped in found.unreadable} == {"docs/itself", "docs/broken"}


def test_a_link_to_the_folder_is_the_folder(folder, tmp_path):
    (tmp_path / "other").symlink_to(folder)
    assert scan(tmp_path / "other").prefix == "docs/"


def test_a_name_that_is_not_utf8_is_reported_and_harms_nothing(folder):
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt"))).write_text("x")
    found = scan(folder)
    assert [skipped.reason for skipped in found.unreadable] == ["its name is not UTF-8"]
    found.unreadable[0].source.encode()
    assert len(found.files) == 3


def test_missing_is_not_empty(tmp_path):
    with pytest.raises(NotThere):
        scan(tmp_path / "unmounted")
    with pytest.raises(ChangeRequest):
        scan(Path("/"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ChangeRequest):
        scan(tmp_path / "file")


def test_empty_where_it_was_full_is_refused(tmp_path):
    (tmp_path / "docs").mkdir()
    found = scan(tmp_path / "docs")
    with pytest.raises(ChangeRequest) as caught:
        plan(found, {"docs/a.md": sha("alpha")})
    assert caught.value.code == "folder_empty"
    assert plan(found, {"docs-too/a.md": "1", "a.md": "2"}).held == 0


@pytest.fixture
def as_nobody():
    """A folder for all, and no privileges: root reads everything whatever the permission bits say."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    top = Path(tempfile.mkdtemp())
    yield top
    for locked in top.rglob("*"):
        if locked.is_dir():
            locked.chmod(0o700)
    shutil.rmtree(top)
    if os.getuid() == 0:
        os.seteuid(0)


def test_what_cannot_be_read_is_left_alone(as_nobody):
    top = as_nobody / "docs"
    (top / "locked").mkdir(parents=True)
    (top / "locked" / "inner.md").write_text("inner")
    (top / "locked.md").write_text("locked")
    (top / "gone.md").write_text("gone")
    for n in range(4):
        (top / f"{n}.md").write_text(str(n))
    stored = stored_as_scanned(scan(top))
    (top / "gone.md").unlink()
    (top / "locked.md").chmod(0)
    (top / "locked").chmod(0)
    found = scan(top)
    assert found.unreadable == (
        Skipped("docs/locked/", "Permission denied"),
        Skipped("docs/locked.md", "Permission denied"),
    )
    todo = plan(found, stored)
    assert todo.remove == ("docs/gone.md",)
    assert todo.kept == ("docs/locked.md", "docs/locked/inner.md")
    top.chmod(0)
    with pytest.raises(ChangeRequest) as caught:
        scan(top)
    assert caught.value.code == "folder_unreadable"
    top.chmod(0o700)


def test_the_plan_makes_the_store_equal_to_the_folder(folder):
    found = scan(folder)
    first = plan(found, {})
    assert (first.add, first.replace, first.unchanged, first.remove) == (found.files, (), (), ())
    stored = stored_as_scanned(found) | {"docs-too/a.md": "1", "/docs/a.md": "2"}
    again = plan(scan(folder), stored)
    assert (again.add, again.replace, again.unchanged, again.remove) == ((), (), found.files, ())
    (folder / "a.md").write_text("changed")
    (folder / "new.md").write_text("alpha")
    (folder / "sub" / "deep" / "a.md").unlink()
    todo = plan(scan(folder), stored)
    assert [file.source for file in todo.add] == ["docs/new.md"]
    assert [file.source for file in todo.replace] == ["docs/a.md"]
    assert [file.source for file in todo.unchanged] == ["docs/sub/b ü.md"]
    assert todo.remove == ("docs/sub/deep/a.md",)
    after = {s: h for s, h in stored.items() if s not in todo.remove} | {
        f.source: f.sha256 for f in (*todo.add, *todo.replace)
    }
    final = plan(scan(folder), after)
    assert (final.add, final.replace, final.remove) == ((), (), ())


@pytest.mark.parametrize(
    ("held", "gone", "much"), [(3, 1, False), (3, 2, True), (1, 1, True), (100, 33, False), (100, 34, True)]
)
def test_more_than_a_third_is_much(held, gone, much):
    stored = {f"docs/{n}": "1" for n in range(held)} | {f"other/{n}": "1" for n in range(1000)}
    there = tuple(ScannedFile(Path("x"), f"docs/{n}", "1", 1) for n in range(gone, held)) or (
        ScannedFile(Path("x"), "docs/new", "1", 1),
    )
    todo = plan(Scan(Path("docs"), "docs/", there, (), (), 0), stored)
    assert len(todo.remove) == gone
    assert todo.removes_much is todo.changes_much is much
    other = tuple(ScannedFile(Path("x"), f"docs/{n}", "2" if n < gone else "1", 1) for n in range(held))
    todo = plan(Scan(Path("docs"), "docs/", other, (), (), 0), stored)
    assert (len(todo.replace), todo.removes_much, todo.changes_much) == (gone, False, much)


def test_the_place_of_a_file_below_a_folder():
    docs = Path("/a/docs")
    assert place_below(docs, Path("/a/docs/b/c ü.md")) == "b/c ü.md"
    for elsewhere in ("/a/docs", "/a/docs2/b.md", "/a/b.md", "/a/docs/.git/b.md", "/a/docs/.b.md"):
        assert place_below(docs, Path(elsewhere)) is None


def test_a_single_file_is_named_by_its_whole_path(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert scan_file(Path("a.md")).source == str(folder / "a.md")
    assert scan_file(folder / "a.md").sha256 == sha("alpha")
    with pytest.raises(NotThere):
        scan_file(Path("nothing.md"))
    with pytest.raises(ChangeRequest):
        scan_file(folder)
