"""The API's documentation as a plain page, made from its OpenAPI description; no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:.75rem;overflow:auto}"
    "summary{cursor:pointer;padding:.35rem 0}summary b{display:inline-block;min-width:4.5rem}"
    "details{border-top:1px solid #ddd}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}h2{margin-top:2rem}"
    "@media(prefers-color-scheme:dark){body{background:#121212;color:#eee}pre{background:#222}details{border-color:#444}"
    "a{color:#8ab4f8}}"
)
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
"""What a Content-Security-Policy calls this very style."""


def reference(api: Mapping[str, Any]) -> str:
    """Return the page (HTML) of an OpenAPI description: its operations by tag, then its schemas."""
    info = api["info"]
    by_tag: dict[str, list[str]] = {}
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append("".join(_operation(method, path, operation)))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in by_tag.items()]
    schemas = api.get("components", {}).get("schemas", {})
    parts.append("<h2>schemas</h2>")
    parts += [
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_code(schema)}</details>'
        for name, schema in sorted(schemas.items())
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f'<p>{escape(info.get("description", ""))} <a href="openapi.json">openapi.json</a></p>'
        f"{''.join(parts)}</body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> "
        f"{escape(operation.get('summary', ''))}</summary>"
    )
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if scope := operation.get("x-scope"):
        yield f"<p>Needs: {escape(scope)}</p>"
    if parameters := operation.get("parameters"):
        yield "<table><tr><th>parameter</th><th>in</th><th>meaning</th></tr>"
        for one in parameters:
            name = f"{one['name']} (required)" if one.get("required") else one["name"]
            yield (
                f"<tr><td><code>{escape(name)}</code></td><td>{escape(one['in'])}</td>"
                f"<td>{escape(one.get('description', ''))}</td></tr>"
            )
        yield "</table>"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body (<code>{escape(media_type)}</code>):</p>{_code(content.get('schema', {}))}"
    yield "<table><tr><th>answer</th><th></th></tr>"
    for status, answer in operation["responses"].items():
        yield f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))}</td></tr>"
    yield "</table></details>"


def _code(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"
