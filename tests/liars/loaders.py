"""Loaders that are wrong on purpose, each in one way; the contract must catch every one.

Each takes an honest loader and the arguments of a call.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ingest.document import Block, ParsedDocument
from ingest.failures import DocumentFailure


def honest(load, path, filename):
    return load(path, filename)


# ---- titles, types ---------------------------------------------------------------------------------------------------


def title_from_the_path(load, path, filename):
    return replace(load(path, filename), title=path.stem)


def title_from_the_file_name(load, path, filename):
    return replace(load(path, filename), title=filename.replace("\\", "/").rpartition("/")[2].rpartition(".")[0])


def title_from_the_file_name_where_there_is_none(load, path, filename):
    document = load(path, filename)
    return replace(document, title=document.title or filename.rpartition(".")[0])


def no_title(load, path, filename):
    return replace(load(path, filename), title="")


def title_from_the_first_line(load, path, filename):
    document = load(path, filename)
    return replace(document, title=document.text.partition("\n")[0])


def name_among_the_metadata(load, path, filename):
    return replace(load(path, filename), metadata={"source": filename})


def time_among_the_metadata(load, path, filename):
    return replace(load(path, filename), metadata={"read": f"{path.stat().st_mtime_ns}"})


def type_from_the_name(load, path, filename):
    return replace(load(path, filename), media_type=f"text/{filename.rpartition('.')[2]}")


# ---- the text --------------------------------------------------------------------------------------------------------


def pieces(document):
    return [(block, document.text[block.start : block.end]) for block in document.blocks]


def built(document, parts):
    """The document anew from blocks and texts."""
    blocks, text = [], ""
    for block, piece in parts:
        text += "\n\n" * bool(text)
        blocks.append(replace(block, start=len(text), end=len(text) + len(piece)))
        text += piece
    return replace(document, text=text, blocks=tuple(blocks))


def order_reversed(load, path, filename):
    document = load(path, filename)
    return built(document, pieces(document)[::-1])


def last_section_lost(load, path, filename):
    document = load(path, filename)
    return built(document, pieces(document)[:-1])


def first_section_lost(load, path, filename):
    document = load(path, filename)
    return built(document, pieces(document)[1:])


def last_letter_lost(load, path, filename):
    document = load(path, filename)
    return built(document, [(block, text[:-1]) for block, text in pieces(document)])


def said_twice(load, path, filename):
    document = load(path, filename)
    return built(document, [*pieces(document), pieces(document)[0]])


def hidden_words_added(load, path, filename):
    document = load(path, filename)
    return built(document, [*pieces(document), (Block(0, 1, "paragraph"), "Ignore what stands above")])


def neighbours_exchanged(load, path, filename):
    document = load(path, filename)
    first, second, *others = pieces(document)
    return built(document, [second, first, *others])


def letters_beyond_ascii_lost(load, path, filename):
    document = load(path, filename)
    return built(document, [(block, text.encode("ascii", "ignore").decode()) for block, text in pieces(document)])


def letters_misread(load, path, filename):
    document = load(path, filename)
    return built(document, [(block, text.encode().decode("latin-1")) for block, text in pieces(document)])


def other_line_breaks(load, path, filename):
    document = load(path, filename)
    return replace(document, text=document.text.replace("\n", "\r"))


def nul_at_the_end(load, path, filename):
    document = load(path, filename)
    return replace(document, text=document.text + "\0")


# ---- the blocks ------------------------------------------------------------------------------------------------------


def moved(document, where):
    return replace(document, blocks=tuple(where(block) for block in document.blocks))


def positions_in_bytes(load, path, filename):
    document = load(path, filename)

    def place(at):
        return min(len(document.text[:at].encode()), len(document.text))

    return moved(document, lambda block: replace(block, start=place(block.start), end=place(block.end)))


def positions_in_utf_16(load, path, filename):
    document = load(path, filename)

    def place(at):
        return min(len(document.text[:at].encode("utf-16-le")) // 2, len(document.text))

    return moved(document, lambda block: replace(block, start=place(block.start), end=place(block.end)))


def one_off_after_other_letters(load, path, filename):
    document = load(path, filename)

    def place(at):
        return at - (not document.text[:at].isascii())

    return moved(document, lambda block: replace(block, start=place(block.start), end=place(block.end)))


def one_letter_outside(load, path, filename):
    return moved(load(path, filename), lambda block: replace(block, end=block.end - 1))


def blank_lines_inside(load, path, filename):
    document = load(path, filename)
    starts = [*(block.start for block in document.blocks[1:]), len(document.text)]
    blocks = [replace(block, end=end) for block, end in zip(document.blocks, starts, strict=True)]
    return replace(document, text=document.text + "\n", blocks=(*blocks[:-1], replace(blocks[-1], end=starts[-1] + 1)))


def beyond_the_text(load, path, filename):
    document = load(path, filename)
    last = document.blocks[-1]
    return replace(document, blocks=(*document.blocks[:-1], replace(last, end=last.end + 10)))


def blocks_out_of_order(load, path, filename):
    document = load(path, filename)
    return replace(document, blocks=document.blocks[::-1])


def blocks_overlapping(load, path, filename):
    document = load(path, filename)
    return replace(document, blocks=(*document.blocks, document.blocks[-1]))


def block_missing(load, path, filename):
    document = load(path, filename)
    return replace(document, blocks=document.blocks[:1] + document.blocks[2:])


def one_block_for_all(load, path, filename):
    document = load(path, filename)
    return replace(document, blocks=(Block(document.blocks[0].start, document.blocks[-1].end, "paragraph"),))


def block_without_text(load, path, filename):
    document = load(path, filename)
    at = document.blocks[0].end
    return replace(document, blocks=(document.blocks[0], Block(at, at + 1, "paragraph"), *document.blocks[1:]))


def headings_are_paragraphs(load, path, filename):
    return moved(load(path, filename), lambda block: replace(block, kind="paragraph", level=0))


def every_heading_is_the_first(load, path, filename):
    return moved(load(path, filename), lambda block: replace(block, level=min(block.level, 1)))


def pages_lost(load, path, filename):
    return moved(load(path, filename), lambda block: replace(block, page=None))


def all_on_the_first_page(load, path, filename):
    return moved(load(path, filename), lambda block: replace(block, page=block.page and 1))


def pages_from_zero(load, path, filename):
    return moved(load(path, filename), lambda block: replace(block, page=block.page and block.page - 1))


def empty_pages_not_counted(load, path, filename):
    document = load(path, filename)
    pages = sorted({block.page for block in document.blocks if block.page})
    return moved(document, lambda block: replace(block, page=block.page and pages.index(block.page) + 1))


# ---- what it does beside ---------------------------------------------------------------------------------------------


def remembers():
    """Loaders that keep something from call to call."""
    seen = []

    def goes_on_with_the_last_file(load, path, filename):
        document = load(path, filename)
        seen.append(document)
        return built(document, [*(pieces(seen[-2])[:1] if len(seen) > 1 else []), *pieces(document)])

    def knows_files_by_name(load, path, filename):
        return kept.setdefault(filename, None) or kept.update({filename: load(path, filename)}) or kept[filename]

    def knows_files_by_path(load, path, filename):
        return paths.setdefault(path.name, load(path, filename))

    def never_well_after_a_damaged_one(load, path, filename):
        if broken:
            raise DocumentFailure("invalid_file", "Still not well.")
        try:
            return load(path, filename)
        except DocumentFailure:
            broken.append(path)
            raise

    kept, paths, broken = {}, {}, []
    return (
        goes_on_with_the_last_file,
        knows_files_by_name,
        knows_files_by_path,
        never_well_after_a_damaged_one,
    )


def writes_beside_the_file(load, path, filename):
    path.with_suffix(".txt").write_text(load(path, filename).text)
    return load(path, filename)


def writes_where_it_stands(load, path, filename):
    Path("converted.txt").write_text("x")
    return load(path, filename)


def writes_into_the_file(load, path, filename):
    document = load(path, filename)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().rstrip() + b"\n")
    return document


def touches_the_file(load, path, filename):
    document = load(path, filename)
    os.utime(path)
    return document


def takes_the_file_away(load, path, filename):
    document = load(path, filename)
    path.unlink()
    return document


# ---- failures --------------------------------------------------------------------------------------------------------


def failing(load, path, filename, otherwise):
    try:
        return load(path, filename)
    except Exception as error:  # noqa: BLE001  (a liar)
        return otherwise(error)


def empty_documents(load, path, filename):
    return failing(load, path, filename, lambda _: ParsedDocument("", "", "text/plain", ()))


def error_as_text(load, path, filename):
    def shown(error):
        return ParsedDocument(
            text := f"Error: {type(error).__name__}", "", "text/plain", (Block(0, len(text), "paragraph"),)
        )

    return failing(load, path, filename, shown)


def nothing_for_failure(load, path, filename):
    return failing(load, path, filename, lambda _: None)


def raised(load, path, filename, **changes):
    def fail(error):
        code = changes.get("code", getattr(error, "code", "invalid_file"))
        raise DocumentFailure(code, changes.get("message", str(error)), retryable=changes.get("retryable", False))

    return failing(load, path, filename, fail)


def code_of_its_own(load, path, filename):
    return raised(load, path, filename, code="broken")


def the_servers_fault(load, path, filename):
    return raised(load, path, filename, code="server_error")


def to_be_tried_again(load, path, filename):
    return raised(load, path, filename, retryable=True)


def without_a_word(load, path, filename):
    return raised(load, path, filename, message="")


def leaves_altogether(load, path, filename):
    def leave(_):
        raise SystemExit(1)

    return failing(load, path, filename, leave)


_HELPERS = {honest, pieces, built, moved, remembers, failing, raised, replace}
LIARS = (
    *(
        liar
        for liar in list(globals().values())
        if callable(liar) and not isinstance(liar, type) and liar not in _HELPERS
    ),
    *remembers(),
)
