"""The table of figures in the model card, between two marks."""

from collections.abc import Mapping
from pathlib import Path

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def table(found: Mapping[str, tuple[float, int]], targets: Mapping[str, float]) -> str:
    """Markdown; what is a share is given in percent."""
    rows = ["| measure | reached | aimed at | questions |", "|---|---|---|---|"]
    for name, (value, number) in found.items():
        as_number = any(word in name for word in ("BLEU", "CIDEr", "speed"))
        aim = targets.get(name)
        shown = [f"{v:.2f}" if as_number else f"{v:.0%}" for v in (value, *([] if aim is None else [aim]))]
        rows.append(f"| {name} | {shown[0]} | {shown[1] if aim is not None else ''} | {number} |")
    return "\n".join(rows)


def write_table(card: Path, found: Mapping[str, tuple[float, int]], targets: Mapping[str, float]) -> None:
    """Put the table into the model card."""
    text = card.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    card.write_text(f"{head}{BEGIN}\n{table(found, targets)}\n{END}{tail}", encoding="utf-8")
