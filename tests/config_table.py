"""The tables of every configuration key in configs/README.md; `python -m tests.config_table` writes them anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from dali_asr import Config, Masking

README = Path(__file__).parents[1] / "configs/README.md"
BEGIN, END = "<!-- keys: written by `python -m tests.config_table` -->\n", "<!-- end of keys -->\n"

OPTIONAL = {"loader.masking": asdict(Masking())}  # values of sections that are null by default, where given as {}

Schema = dict[str, Any]


def key_tables() -> str:
    """Return one table per section: key, values, default, description."""
    schema = Config.model_json_schema()
    defaults = Config().model_dump(mode="json")
    plain = {key: field for key, field in schema["properties"].items() if not _section(field, schema)}
    return "\n".join([*_tables("", schema, defaults, schema), _table("Outside the sections", "", plain, defaults)])


def _tables(path: str, section: Schema, defaults: Schema, schema: Schema) -> Iterator[str]:
    """Yield the table of each section in a section."""
    for key, field in section["properties"].items():
        inner = _section(field, schema)
        if inner:
            where = f"{path}{key}"
            values = OPTIONAL[where] if defaults[key] is None else defaults[key]
            fields = {k: f for k, f in inner["properties"].items() if "anyOf" in f or not _section(f, schema)}
            yield _table(f"`{where}`", field.get("description", inner.get("description", "")), fields, values)
            yield from _tables(f"{where}.", inner, values, schema)


def _table(title: str, description: str, fields: Schema, defaults: Schema) -> str:
    lines = [f"### {title}", "", *([description, ""] if description else [])]
    lines += ["| key | values | default | description |", "| --- | --- | --- | --- |"]
    for key, field in fields.items():
        text = field["description"].replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{key}` | {_values(field)} | `{_yaml(defaults[key])}` | {text} |")
    return "\n".join([*lines, ""])


def _section(field: Schema, schema: Schema) -> Schema | None:
    """Return the schema of a field that is a section, perhaps an optional one."""
    for choice in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in choice:
            section: Schema = schema["$defs"][choice["$ref"].rpartition("/")[2]]
            return section
    return None


def _values(field: Schema) -> str:
    """Describe the values that a field allows."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(map(_values, field["anyOf"])))
    if "$ref" in field:
        return "a section, see below,"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return _list(field)
    if field["type"] in ("integer", "number"):
        return _number(field)
    return {"boolean": "`true`, `false`", "null": "`null`", "string": "text"}[field["type"]]


def _list(field: Schema) -> str:
    items = field.get("items") or field["prefixItems"][0]
    if field.get("minItems") == field.get("maxItems") == 2:
        return f"[{_values(items)}, {_values(items)}]"
    return f"list of {_values(items)}"


def _number(field: Schema) -> str:
    """Return, for example, `0 ≤ number < 1` or `integer ≥ 1`."""
    low = next(((sign, field[k]) for k, sign in (("minimum", "≥"), ("exclusiveMinimum", ">")) if k in field), None)
    high = next(((sign, field[k]) for k, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if k in field), None)
    kind = field["type"]
    if not high or high[1] > 1 << 32:
        return f"{kind} {low[0]} {low[1]:g}" if low else str(kind)
    assert low, field
    return f"{low[1]:g} {'≤' if low[0] == '≥' else '<'} {kind} {high[0]} {high[1]:g}"


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def written(text: str) -> str:
    """Return the README with the tables of today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{key_tables()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
