"""The manual's examples run, and what it says of settings and formats is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ingest import archive, failures, sniff
from rag.embedders import EmbedderRegistry
from rag.evaluation.groundedness import BLIND_SPOTS
from rag.models.registry import ModelRegistry
from rag.settings import Settings, load_settings, settings_names
from tests.api.running import fill
from tests.campaigns.kills import Server, free_port
from tests.installations import Process, one_process, running

MANUAL = Path(__file__).resolve().parents[2] / "api" / "manual"
PAGES = (
    "getting-started",
    "answering",
    "concepts",
    "configuration",
    "generations",
    "access",
    "evaluation",
    "formats",
    "moving",
    "observing",
    "operating",
    "quality",
    "growing",
    "clients",
)


def page(name: str) -> str:
    return (MANUAL / f"{name}.md").read_text(encoding="utf-8")


def examples(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), flags=re.DOTALL)


def run(example: str, folder: Path, environment: dict[str, str], seconds: float) -> str:
    """What an example prints, run as written. Fails where it does."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{example}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def surroundings(server: Server | Process, home: Path) -> dict[str, str]:
    """The environment of somebody who speaks to this server with these programs."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(MANUAL.parents[1]),
        "RAG_URL": server.url,
        "HOME": str(home),
        "NO_PROXY": "*",
    }


def test_the_pages_are_these() -> None:
    assert {path.stem for path in MANUAL.glob("*.md")} == set(PAGES)


def test_getting_started_works_as_written(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", free_port())
    server.start()
    environment = surroundings(server, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    try:
        *before, last = examples("getting-started", "sh")
        assert "rag stores delete" in last
        for example in (*before, *examples("answering", "sh"), last, *examples("operating", "sh")):
            said = run(example, work, environment, seconds=60)
            if "rag ask" in example:
                assert "four weeks" in said
            if "chat/completions" in example or "v1/responses" in example:
                assert '"grounded":true' in said.replace(" ", "")
    finally:
        server.kill()


def test_a_swap_works_as_written(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", free_port())
    server.start()
    environment = surroundings(server, tmp_path)
    try:
        said = [run(example, tmp_path, environment, seconds=60) for example in examples("generations", "sh")]
    finally:
        server.kill()
    candidate = (tmp_path / "candidate.id").read_text().strip()
    assert candidate.startswith("gen_")
    assert "live" in said[0]
    assert f"{candidate}: ready; toy-256" in said[1]
    assert said[2].count("four weeks") == 2
    assert "Asked 10% of the questions too" in said[3]
    assert f"{candidate}: live; toy-256" in said[4]
    assert "live; toy-384" in said[4]
    assert f"{candidate}: retired" in said[5]


def test_access_works_as_written(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", free_port())
    server.start()
    environment = surroundings(server, tmp_path)
    try:
        said = [run(example, tmp_path, environment, seconds=60) for example in examples("access", "sh")]
    finally:
        server.kill()
    secret = (tmp_path / "helpdesk.key").read_text().strip()
    assert secret[:10] in said[0]
    assert secret not in said[0]
    assert '"name":"handbook"' in said[0].replace(" ", "")
    assert "Revoked key_" in said[1]
    assert said[2].count("forty crowns") == 1


def test_evaluation_works_as_written(tmp_path: Path) -> None:
    with running(
        one_process(tmp_path, {"RAG_EMBEDDER": "toy-384", "RAG_RETRIEVAL_MIN_RELEVANCE": "0"})
    ) as installation:
        environment = surroundings(installation.processes[0], tmp_path)
        here = {name: value for name, value in environment.items() if name != "RAG_URL"}
        here |= {"RAG_DATA": str(tmp_path / "data"), "RAG_EMBEDDER": "toy-384"}
        kept, feedback, compared, tried, users = examples("evaluation", "sh")
        said = [run(example, tmp_path, environment, seconds=60) for example in (kept, feedback, compared, users)]
        said.append(run(tried, tmp_path, here, seconds=120))
    assert "helpdesk@1" in said[0]
    assert said[0].count('"question": ') == 4
    assert "nDCG@10" in said[2]
    assert "- (0 of 0)" in said[3]
    assert "(quotes alone): ended." in said[3]
    assert "chunk_tokens 128" in said[4]
    assert "<svg" in (tmp_path / "experiment-sizes" / "report.html").read_text()


def test_quality_works_as_written(tmp_path: Path) -> None:
    with running(one_process(tmp_path, {"RAG_EMBEDDER": "toy-384"})) as installation:
        environment = surroundings(installation.processes[0], tmp_path)
        said = [run(example, tmp_path, environment, seconds=60) for example in examples("quality", "sh")]
    assert "2 answers by words: 1 with a sentence" in said[0]
    assert "macro-F1 1.000" in said[0]
    assert all(spot in said[0] for spot in BLIND_SPOTS)
    assert "chosen on 2 questions (dev)" in said[1]
    assert "Canaries: lamps@1, 4 questions." in said[2]
    assert "no alarm" in said[2]


def test_the_clients_work_as_written(tmp_path: Path) -> None:
    pytest.importorskip("llama_index.core", reason="the extra `llama-index` is not installed")
    with running(one_process(tmp_path, {"RAG_EMBEDDER": "toy-384"})) as installation:
        url = installation.doors[0]
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            fill(http, "manual")
        found = examples("clients", "python")
        assert len(found) == 3
        for example in found:
            code = example.replace("http://127.0.0.1:8000", url)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert ".md" in done.stdout


def test_moving_works_as_written(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "kettle.md").write_text("# Kettle\n\nThe kettle whistles.\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(MANUAL.parents[1]),
        "RAG_EMBEDDER": "toy-384",
    }
    last = "rag search notes-again kettle --data rag-data-2"
    all_ = ("rag ingest notes --store notes", *examples("moving", "sh"), last)
    said = [run(example, tmp_path, environment, seconds=120) for example in all_]
    assert f'data = "{tmp_path}/rag-data-2"' in said[-2]
    assert "whistles" in said[-1]


def test_every_field_of_an_archive_is_told() -> None:
    text = page("moving")
    for part in (archive.FileLine, archive.DocumentLine, archive.VersionLine, archive.Manifest):
        assert all(f"`{name}`" in text for name in part.model_fields)
    names = {*archive.chunks_schema().names, *archive.vectors_schema(4).names, *archive.TABLES}
    assert all(f"`{name}`" in text for name in names)


@pytest.mark.parametrize("example", [*examples("configuration", "toml"), *examples("evaluation", "toml")])
def test_settings_examples_load(example: str, tmp_path: Path) -> None:
    file = tmp_path / "rag.toml"
    file.write_text(example)
    settings = load_settings(file, environment={})
    ModelRegistry(settings.models, settings.model)
    EmbedderRegistry.from_tables(settings.embedders).spec(settings.embedder)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \|.*\| (.*?) \|$", page("configuration"), flags=re.MULTILINE))
    assert list(rows) == settings_names()
    settings = Settings()
    for name, told in rows.items():
        value: object = settings
        for part in name.split("."):
            value = getattr(value, part)
        if told.startswith("`") and value is not None:
            assert told == f"`{str(value).removesuffix('.0')}`", name
        elif not told.startswith("`"):
            assert value in (None, ()) or name == "ingest.chunk_overlap_tokens", name


def test_every_format_and_failure_is_in_its_table() -> None:
    text = page("formats")
    for format_ in re.split(r", | and ", sniff.SUPPORTED):
        assert format_.lower() in text.lower(), format_
    for code in failures.FAILURE_CODES:
        assert f"`{code}`" in text, code


def test_the_memory_of_a_vector_is_reckoned_right() -> None:
    rows = re.findall(r"^\| (fp32|fp16|int8|binary) \| (.*) \|$", page("growing"), flags=re.MULTILINE)
    assert [form for form, _ in rows] == ["fp32", "fp16", "int8", "binary"]
    for (_, cells), bits in zip(rows, (32, 16, 8, 1), strict=True):
        expected = []
        for dimension in (384, 1024):
            alone = dimension * bits // 8
            whole = alone + round(2 * 16 * 4 * 1.1) + round(66 / 125 * 181) * 8 + 32
            expected += [
                f"{alone:,}",
                f"{whole:,}",
                f"{whole / 100:.0f} GB",
                f"{whole / 10:.0f} GB",
                f"{whole / 1000:.1f} TB",
            ]
        assert cells.split(" | ") == expected
