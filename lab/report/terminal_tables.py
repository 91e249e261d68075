"""Lines and tables for the terminal. No text from a guest steers it."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.files import clean_text, escape_commands, join_lines
from lab.record import CellResult
from lab.report import table

# Spaces between two columns.
GAP = 2
# Longest text in a cell of the table, in characters.
LONGEST_CELL = 80


def lay_out_tables(headings: Sequence[str], rows: Mapping[str, Sequence[Text]], width: int) -> list[Table]:
    """Lay out one row per guest, in as many tables as are needed to break no word."""
    heads = [Text(format_cell(head)) for head in headings]
    columns = [[head, *(row[n] for row in rows.values())] for n, head in enumerate(heads)]
    first = max(cell_len(format_cell(name)) for name in ("guest", *rows))
    narrow = [max(_longest_word(text) for text in column) for column in columns]
    widest = [max(cell_len(text.plain) for text in column) for column in columns]
    parts: list[list[int]] = []
    room = 0
    for number, least in enumerate(narrow):
        if not parts or room < GAP + least:
            parts.append([])
            room = width - first
        parts[-1].append(number)
        room -= GAP + least
    laid_out = []
    for part in parts:
        table_of_part = Table("guest", box=None, pad_edge=False)
        spare = width - first - sum(GAP + narrow[number] for number in part)
        for number in part:
            more = max(0, min(spare, widest[number] - narrow[number]))
            spare -= more
            table_of_part.add_column(heads[number], width=narrow[number] + more, overflow="fold")
        for guest, row in rows.items():
            table_of_part.add_row(Text(format_cell(guest)), *[row[number] for number in part])
        laid_out.append(table_of_part)
    return laid_out


def count_fewest_lines(headings: Sequence[str], rows: int, width: int) -> int:
    """How many lines the tables of so many rows take at least, whatever is in them."""
    least = sum(GAP + _longest_word(Text(format_cell(head))) for head in headings)
    return -(-least // width) * (rows + 1)


def style_square(cell: CellResult | None, *, weak: bool = False) -> Text:
    """Return a square in the colour of its status. `weak`: boxes in other cells were better protected."""
    text = f"{table.format_square(cell)}, less protected" if weak else table.format_square(cell)
    return Text(format_cell(text), table.LOOKS[cell.status].style if cell else "")


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split()), default=1)


def print_plain(console: Console, text: str, style: str = "") -> None:
    """Print text without markup. The terminal wraps the lines, so that they can be copied."""
    console.print(Text(escape_commands(clean_text(text)), style), soft_wrap=True)


def format_cell(text: str) -> str:
    """Return text for a cell of a table: one line, and no word of it is a command to a CI job."""
    # Each of its words may begin a line of the table.
    return " ".join(map(escape_commands, join_lines(text, LONGEST_CELL).split(" ")))
