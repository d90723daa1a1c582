"""Why a cell has its number, as text: what was measured, who said what, what it cost, how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mibench.record import Record
from mibench.report.caption import judge_facts
from mibench.report.cell_page import estimate_text, lead_text
from mibench.report.escape import plain, printable
from mibench.report.evidence import Evidence, exemplars, protected_shots, read_evidence, repeat_command
from mibench.report.evidence_page import nearest_text, said_text, score_text, share_text, verdict_text
from mibench.report.find_cell import FoundCell
from mibench.report.flag_meanings import explained_flags
from mibench.report.frame import Json, cell_rows, may_show_images, metric_infos, number, part, reason
from mibench.report.places import attack_label, defense_label

Rows = Sequence[Sequence[str]]
MODEL_STAGES = ("train", "output", "adapt", "invert")


def why(found: FoundCell) -> str:
    """All that is known of one cell, as text of many lines.

    Raises:
        RecordError: its evidence is there and cannot be read.
    """
    record, evidence = vars(found.record), read_evidence(found.folder)
    sections = [
        ("", _head(record, found)),
        ("Number", _number(record)),
        ("Hits by person", _hits(found.record)),
        ("Judges", _judges(record, evidence)),
        ("Flags", _flags(record)),
        ("Best, median and worst by the judge's probability of the target", _exemplars(record, evidence)),
        ("All estimates", _estimates(record)),
        ("Costs", _costs(record, found.costs())),
        ("Keys", _keys(record)),
        ("Files", _files(record, found)),
        ("Repeat it", [repeat_command(record, evidence, f"{found.folder.as_posix()}/")]),
    ]
    return "\n\n".join(
        "\n".join([title, *(f"  {printable(line)}" for line in lines)] if title else map(printable, lines))
        for title, lines in sections
        if lines
    )


def columns(rows: Rows) -> list[str]:
    """Rows of words as lines, each column as wide as its longest word; the last is left as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = ("  ".join([*(w.ljust(n) for w, n in zip(row[:-1], widths)), row[-1]]) for row in rows)
    return [line.rstrip() for line in lines]


def model_keys(record: Json) -> list[tuple[str, str]]:
    """Stage and key of every task of a cell's models that its record names; each key once."""
    models = part(record, "keys").get("models") or ()
    found = {
        str(model[stage]): stage for model in models for stage in MODEL_STAGES if model.get(stage) is not None
    }
    return [(stage, key) for key, stage in found.items()]


def _head(record: Json, found: FoundCell) -> list[str]:
    status = {"ok": "measured", "failed": "failed", "blocked": "blocked: it makes no sense"}
    who = f"{attack_label(record)} against {defense_label(record)}"
    lines = [who, lead_text(record), f"cell {record['cell']} of {found.results}, {status[record['status']]}"]
    return lines if record["status"] == "ok" else [*lines, reason(record)]


def _number(record: Json) -> list[str]:
    """AA with what it must be read beside."""
    info = metric_infos([record]).get("aa")
    estimate = part(record, "estimates").get("aa")
    if info is None or estimate is None:
        return []
    value, interval = estimate_text(estimate, info)
    people, count = len(part(record, "targets").get("protected", ())), estimate.get("count")
    chance = number(record.get("chance"))
    return [
        f"AA {value}" + (f", 95 % interval {interval}" if interval else "") + f", of {count} reconstructions "
        f"of {people} protected people. Chance level {share_text(chance)}.",
        *judge_facts(cell_rows([record])),
    ]


def _hits(record: Record) -> list[str]:
    """Who leaks: for each person how many reconstructions the judge takes for them."""
    ordered = sorted(record.hits.items(), key=lambda item: (-item[1].count("1"), len(item[0]), item[0]))
    return columns([[f"label {label}", f"{bits.count('1')} of {len(bits)}", bits] for label, bits in ordered])


def _judges(record: Json, evidence: Evidence | None) -> list[str]:
    """Whether other models confirm the judge."""
    lines = [text] if (text := verdict_text(record, evidence)) else []
    hits: Mapping[str, str] = part(record, "hits")
    for name, second in (part(record, "scrutiny").get("second_hits") or {}).items():
        pairs = [pair for label, bits in hits.items() for pair in zip(bits, second.get(label, ""))]
        judged, both = sum(one == "1" for one, _ in pairs), pairs.count(("1", "1"))
        accuracy = number(part(record, "judge").get(f"{name}_accuracy"))
        lines.append(
            f"The {plain(name)} confirms {both} of {judged} successes; it knows {share_text(accuracy)} of "
            "real images."
        )
    if part(record, "judge").get("audit_net") is None and record["status"] == "ok":
        lines.append("The suite has no audit judge, so nobody confirms the judge's successes.")
    if evidence is None or evidence.shots is None:
        lines.append("Nothing is kept of single reconstructions. Run the suite again to have it.")
    return lines if record["status"] == "ok" else []


def _flags(record: Json) -> list[str]:
    found = explained_flags(record)
    return [f"{text}: {meaning}" if meaning else text for text, meaning in found] or ["none"]


def _exemplars(record: Json, evidence: Evidence | None) -> list[str]:
    """A line for each of a person's exemplars."""
    has_audit = part(record, "judge").get("audit_net") is not None
    audit = ["audit"] if has_audit else []
    rows = [["label", "which", "image", "victim", "judge", *audit, "confidence", "nearest private image"]]
    for label, shots in protected_shots(evidence).items():
        for which, one in exemplars(shots).items():
            words = [
                said_text(one.victim_top, one.victim_p, label),
                said_text(one.judge_top, one.judge_p, label),
                *([said_text(one.audit_top, one.audit_p, label)] if has_audit else []),
            ]
            place = [str(label), which, str(one.index + 1)]
            rows.append([*place, *words, score_text(one.confidence), nearest_text(one)])
    return columns(rows) if len(rows) > 1 else []


def _estimates(record: Json) -> list[str]:
    rows = []
    for name, info in metric_infos([record]).items():
        estimate = part(record, "estimates").get(name)
        value, interval = estimate_text(estimate, info)
        count = "" if estimate is None else f"n {estimate.get('count')}"
        rows.append(
            [info.title, value, f"[{interval}]" if interval else "", count, f"{info.better} is safer"]
        )
    return columns(rows)


def _costs(record: Json, costs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Queries, and seconds of the tasks that the record names; priors, data and judges serve many cells."""
    queries = part(record, "queries")
    lines = []
    if queries:
        forward, gradient = (number(queries.get(f"{one}_per_image")) for one in ("forward", "gradient"))
        lines.append(
            f"{forward:.6g} queries and {gradient:.6g} gradients for each reconstruction, "
            f"{number(queries.get('prior_forward')):.6g} queries before."
        )
    named = [*model_keys(record), ("measure", str(part(record, "keys").get("measure")))]
    known = [(stage, costs[key]) for stage, key in named if key in costs]
    by_stage: dict[str, float] = {}
    for stage, cost in known:
        by_stage[stage] = by_stage.get(stage, 0.0) + float(cost["wall_s"])
    if known:
        peak = max(float(cost["peak_mib"]) for _, cost in known)
        times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in by_stage.items())
        lines.append(f"{times}; {peak:.0f} MiB at most. Without data, judges and priors, which cells share.")
    return lines


def _keys(record: Json) -> list[str]:
    made = part(record, "provenance")
    versions = ", ".join(f"{name} {plain(value)}" for name, value in made.items())
    keys = part(record, "keys")
    rows = [["measure", str(keys.get("measure"))]] if keys.get("measure") else []
    plugins = ", ".join(
        f"{plain(part(record, kind).get('name'))} version {part(record, kind).get('version')}"
        for kind in ("attack", "defense")
    )
    return [*columns([*rows, *([stage, key] for stage, key in model_keys(record))]), plugins, versions]


def _files(record: Json, found: FoundCell) -> list[str]:
    names = (
        "index.html",
        "reconstructions.png",
        "got.png",
        "real.png",
        "nearest.png",
        "evidence.json",
        "cell.toml",
    )
    lines = [(found.folder / name).as_posix() for name in names if (found.folder / name).is_file()]
    if not may_show_images(record):
        lines.append(
            "Images are withheld: this dataset shows real persons. Who ran it has them in withheld/."
        )
    return lines or ["none: the folder of the cell is gone. Run the suite again."]
