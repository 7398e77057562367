"""A leaderboard in the terminal: tables of entries that can be ranked, and what a check of its entries found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marl.core.intervals import Interval
from marl.measure.leaderboard import Entry
from marl.measure.leaderboard_check import Checked
from marl.show import tables

WIDTH = 160  # characters, where no terminal limits it
TITLES = (
    "", "name", "by", "seeds", "episodes", "every column", "by luck", "weakest column", "without attack", "date",
)  # fmt: skip
WORDS = {"equal": "equal", "within": "within the intervals", "no": "no"}


def _text(value: Interval | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else " ".join(tables.interval_lines(value))


def board_tables(entries: Iterable[Entry]) -> list[Table]:
    """Return one table for each game, setting of the attacks and set of columns with a win rate: only within one do
    ranks compare the same thing. The title names the columns that were not possible."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        key = (entry.task, entry.game, entry.physics, entry.suite, entry.attacks, entry.measured)
        groups.setdefault(key, []).append(entry)
    made = []
    for (task, game, physics, suite, attacks, _), members in groups.items():
        others = {entry.game for group in groups.values() for entry in group if entry.task == task}
        which = f" (options {game})" if len(others) > 1 else ""
        missing = dict.fromkeys(name for one in members for name in one.columns if name not in one.measured)
        without = f"; not possible: {', '.join(missing)}" if missing else ""
        table = Table(title=Text(f"{task}{which}, rules of version {physics}; suite {suite} ({attacks}){without}"))
        for title in TITLES:
            table.add_column(title, overflow="fold")
        for k, entry in enumerate(members):
            weakest = f"{_text(entry.weakest.win_rate)} {entry.weakest.column}"
            cells = (
                str(k + 1), entry.name, entry.by, str(len(entry.seeds)), str(entry.episodes), _text(entry.every),
                _text(entry.by_luck), weakest, _text(entry.without_attack), entry.date.partition("T")[0],
            )  # fmt: skip
            table.add_row(*map(Text, cells))
        made.append(table)
    return made


def show(entries: list[Entry], console: Console | None = None) -> None:
    """Print the board."""
    console = console or tables.wide_console(WIDTH)
    if not entries:
        console.print("the board has no entries")
    for table in board_tables(entries):
        console.print(table)


def check_table(checked: Checked) -> Table:
    """Return every number of an entry as it was given and as it was measured."""
    entry = checked.entry
    verdict = "agrees" if checked.agrees else "does not agree"
    table = Table(title=Text(f"{entry.name} by {entry.by} on {entry.task}: {verdict}"))
    for title in ("win rate", "given", "measured", "agree"):
        table.add_column(title, overflow="fold")
    for number in checked.numbers:
        cells = (number.name, _text(number.given), _text(number.measured), WORDS[number.verdict])
        table.add_row(*(Text(cell, "bold" if number.verdict == "no" else "") for cell in cells))
    return table


def show_check(results: list[Checked], console: Console | None = None) -> None:
    """Print a table for each entry that was measured again, and a line for each of the others."""
    console = console or tables.wide_console(WIDTH)
    for one in results:
        if one.numbers:
            console.print(check_table(one))
    for one in results:
        if one.why is not None:
            title = f"{'does not agree' if one.wrong else 'not checked'}: {one.entry.name} by {one.entry.by}"
            console.print(f"{title} on {one.entry.task}: {one.why}", markup=False, highlight=False, soft_wrap=True)
    if not results:
        console.print("the board has no entries")
