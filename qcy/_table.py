"""Rows of text in columns, as the reports of qcy print them."""


def table(rows, n_left=None):
    """Return rows of text in columns, the first row underlined.

    Parameters
    ----------
    rows : sequence of sequences
        The first has the heads of the columns.
    n_left : int, optional
        Columns from this one on hold numbers, and end below each other. Default: none does.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    n_left = len(widths) if n_left is None else n_left
    lines = [
        "  ".join(
            cell.ljust(width) if i < n_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
