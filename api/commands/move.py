"""`rag move`: this installation to another catalog, blob store or index engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from api.commands.call import INTERRUPTED, Call, require_here, settings_of
from api.commands.output import note, print_json, print_text
from api.commands.progress import stages
from ingest import move


def run(call: Call, data: Path | None, places: Mapping[str, str | None], *, cancel: bool) -> None:
    """Move, or go on with it, and print the settings to use from now on; with `cancel`, give it up."""
    require_here(call, "A move")
    source = settings_of(call)
    target = move.target_settings(source, data=data, **places)
    if cancel:
        move.cancel(source, target)
        _say(call, {"event": "cancelled"}, "The move was given up; the installation takes changes again.")
        return
    try:
        with stages(as_json=call.json, events=True) as tell:
            report = move.move(source, target, tell)
    except KeyboardInterrupt as error:
        note("Interrupted. The same command goes on with the move; with --cancel added it gives it up.")
        raise SystemExit(INTERRUPTED) from error
    lines = move.settings_lines(target)
    tables = {name: {"rows": sum_.rows, "checksum": sum_.digest} for name, sum_ in report.tables.items()}
    end = {"event": "end", "tables": tables, "blobs": report.blobs, "embedded": 0, "settings": lines}
    shown = "\n".join(f"  {line}" for line in lines)
    held = f"{tables['chunks']['rows']:,} chunks and {report.blobs:,} files" if tables else "Everything"
    _say(
        call,
        end | {"seconds": round(report.seconds, 3)},
        f"{held} moved and verified in {report.seconds:.1f} s; nothing was embedded. From now on use these settings "
        f"(with passwords and options as you gave them), and start the servers again:\n\n{shown}",
    )


def _say(call: Call, event: Mapping[str, object], text: str) -> None:
    if call.json:
        print_json(event, one_line=True)
    else:
        print_text(text)
