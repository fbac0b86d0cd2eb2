"""The table of figures in the model card, between two marks."""

from collections.abc import Mapping
from pathlib import Path

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def table(found: Mapping[str, tuple[float, int]], targets: Mapping[str, float]) -> str:
    """Markdown; what is a share is given in percent, scores of captions to three digits."""
    rows = ["| measure | reached | aimed at | questions |", "|---|---|---|---|"]
    for name, (value, number) in found.items():
        form = ".3f" if "BLEU" in name or "CIDEr" in name else ".0f" if "speed" in name else ".0%"
        aim = targets.get(name)
        shown = [format(v, form) for v in (value, *([] if aim is None else [aim]))]
        rows.append(f"| {name} | {shown[0]} | {shown[1] if aim is not None else ''} | {number} |")
    return "\n".join(rows)


def write_table(card: Path, found: Mapping[str, tuple[float, int]], targets: Mapping[str, float]) -> None:
    """Put the table into the model card."""
    text = card.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    card.write_text(f"{head}{BEGIN}\n{table(found, targets)}\n{END}{tail}", encoding="utf-8")
