"""Pictures of the command line at work, made by running it: `python -m website.screens`.

    python -m website.screens [FOLDER]

runs the commands below against a server of their own and writes what a terminal shows of each to FOLDER (docs/screens).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.transcripts import Desk, Shell, Step, own_desk

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screens"

_COLUMNS = 110

_BEFORE = """\
export PATH=$PWD/.venv/bin:$PATH LATCHGATE_ADMIN_KEY_FILE=.latchgate/root.key
latchgate plans create pro --capability api --key-limit 'calls=1000/60s'
latchgate tenants create acme --name 'Acme Inc.' --plan pro
latchgate roles create reader --tenant acme --permission 'orders.*'
latchgate roles create billing --tenant acme --permission invoices.read
for name in warehouse web-shop reports; do
    latchgate keys create --tenant acme --name $name --role reader --expire-time 90d --key-file $name.key > $name.id
done
latchgate keys create --tenant acme --name bookkeeper --role billing --ip 203.0.113.0/24 \\
    --key-file bookkeeper.key > bookkeeper.id
latchgate keys revoke $(cat reports.id) --reason 'left the company' --yes
for i in 1 2 3 4 5 6 7 8 9; do latchgate verify - --requires orders.read < warehouse.key; done
for i in 1 2 3; do latchgate verify - --requires invoices.read < warehouse.key; done
sleep 3"""
"""What is there when the screens are made."""

SCREENS: Mapping[str, str] = {
    "keys-list": "latchgate keys list --tenant acme",
    "usage": "latchgate keys usage $(cat warehouse.id)",
    "verify": "latchgate verify - --requires orders.read --ip 203.0.113.9 < warehouse.key",
    "audit-list": "latchgate audit list --limit 8",
}
"""A command for each picture."""


def screens(made: Desk) -> dict[str, str]:
    """What a terminal shows of each command, with its colours as escape sequences."""
    shell = made.shell("screens")
    on_a_terminal = Shell(shell.folder, {**shell.env, "FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS)})
    before, *shown = on_a_terminal.run([Step(_BEFORE, ""), *(Step(command, "") for command in SCREENS.values())])
    if "latchgate:" in before.shown:
        raise RuntimeError(before.shown)
    return {name: f"$ {step.command}\n{step.shown}" for name, step in zip(SCREENS, shown, strict=True)}


def picture(shown: str) -> str:
    """The SVG of a screen."""
    console = Console(width=_COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.rstrip("\n")))
    return console.export_svg(title="latchgate", unique_id="screen")


def main(folder: Path) -> None:
    """Write the pictures."""
    with own_desk() as made:
        shown = screens(made)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in shown.items():
        (folder / f"{name}.svg").write_text(picture(text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
