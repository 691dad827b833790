"""The README's table of options, from ExperimentSpec.

    python -m tests.option_table

writes it into README.md, between the two comments that mark its place.
"""

import re
from pathlib import Path
from typing import Any

from qlog.v1 import spec_pb2
from qlog.v1.options import EVERY_VALUE

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN = "<!-- options: written by `python -m tests.option_table` -->\n"
END = "<!-- end of options -->\n"


def table() -> str:
    """One row an option, under the headings that spec.proto gives them."""
    lines = ["| option | default | what it does |", "|---|---|---|"]
    heading = ""
    for field in spec_pb2.ExperimentSpec.DESCRIPTOR.fields:
        info = _info(field)
        if info.group != heading:
            heading = info.group
            lines.append(f"| **{heading}** | | |")
        default = f" `{info.default}`" if info.default else ""
        lines.append(f"| `{_spelling(field)}` |{default} | {_escaped(_help(field))} |")
    return "\n".join(lines) + "\n"


def _info(field: Any) -> Any:
    return field.GetOptions().Extensions[spec_pb2.option_info]


def _spelling(field: Any) -> str:
    if field.name == "model":
        return "MODEL"
    info = _info(field)
    value = "|".join(info.choices) or info.metavar
    # A bar would end the cell, in code too.
    return f"--{field.name} {value}".strip().replace("|", r"\|")


def _help(field: Any) -> str:
    info = _info(field)
    if not info.unsupported:
        return str(info.help)
    if EVERY_VALUE in info.unsupported:
        return f"*Not supported yet.* {info.help}"
    return f"{info.help} *Not supported yet: {', '.join(info.unsupported)}.*"


def _escaped(text: str) -> str:
    return re.sub(r"--[a-z_]+", r"`\g<0>`", text.replace("|", r"\|").replace("<", "&lt;"))


def written() -> str:
    """The table as the README has it."""
    return README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    """Put the table into the README."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{README} lacks the comments that mark the table's place")
    README.write_text(before + BEGIN + table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    write()
