"""The table of docs/spec.md and the JSON Schema of a spec file, made from the declared settings."""

from __future__ import annotations

from hoplab.spec.kinds import Json
from hoplab.spec.parts import Parts
from hoplab.spec.settings import BY_PATH, DECLARED, SETTINGS, keys_of


def markdown_table(parts: Parts) -> str:
    """Return the table of docs/spec.md."""
    rows = [
        f"| `lab:{setting.path}` | {setting.meaning} | {setting.shown_default()} | {setting.allowed_text(parts)} |"
        for setting in DECLARED
    ]
    return "\n".join(["| Setting | Meaning | Default | Allowed |", "|---|---|---|---|", *rows]) + "\n"


def json_schema(parts: Parts) -> Json:
    """Return the JSON Schema of a spec file, for editors. It has the checks of one field, not those between fields."""
    config = {f"lab:{key}": _schema(key, parts) for key in SETTINGS}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hoplab lab spec (Pulumi.<lab>.yaml)",
        "type": ["object", "null"],
        "properties": {
            "config": {
                "type": ["object", "null"],
                "properties": config,
                "patternProperties": {"^(pulumi|libvirt):": {}},
                "additionalProperties": False,
            }
        },
    }


def _schema(path: str, parts: Parts) -> Json:
    """Return the schema of a setting or of a section of settings."""
    own = BY_PATH.get(path)
    value = {"description": own.meaning, **own.schema(parts)} if own else {}
    keys = keys_of(path)
    if not keys:
        return value
    section = {
        "type": ["object", "null"],
        "properties": {key: _schema(f"{path}.{key}", parts) for key in keys},
        "additionalProperties": False,
    }
    return {"anyOf": [value, section]} if own else section
