from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ingest import sniff
from ingest.loaders import loader_for
from tests.contracts.loader import CHECKS
from tests.ingest.samples import sample
from tests.liars.loaders import LIARS, honest

KINDS = (sniff.PDF, sniff.MARKDOWN, sniff.PLAIN)
"""Read in no time; with pages, with headings, with nothing of both."""


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_the_contract_catches(liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for one that writes where it stands
    assert any(_failures(liar, tmp_path)), f"{liar.__name__} passes every check"


def test_the_liars_are_many_and_the_honest_loaders_pass(tmp_path: Path) -> None:
    assert len(LIARS) >= 40
    assert not [name for name in _failures(honest, tmp_path) if name]


def _failures(liar, tmp_path: Path):
    for kind in KINDS:
        for check in CHECKS:
            folder = tmp_path / kind / check.__name__
            folder.mkdir(parents=True)
            try:
                check(partial(liar, loader_for(kind)), sample(kind), folder)
            except (Exception, SystemExit, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
                yield check.__name__
            else:
                yield ""
