"""A visitor of the vendor's pages: keeps cookies, reads forms and links, sends forms as a browser does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI

HOST = "vendor.example"


@dataclass
class FoundForm:
    """A form of a page, with the fields that it would send as it is."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """What a browser makes of an answer."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer, self.status = answer, answer.status_code
        self.forms: list[FoundForm] = []
        self.links: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._link: str | None = None
        self.feed(answer.text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def ids(self) -> set[str]:
        return {str(attributes["id"]) for _, attributes in self.tags if "id" in attributes}

    @property
    def addresses(self) -> Iterator[str]:
        """Every address that the page names."""
        for _, attributes in self.tags:
            yield from (str(attributes[name]) for name in ("href", "src", "action") if name in attributes)

    def form(self, action: str) -> FoundForm:
        return next(found for found in self.forms if found.action == action)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "form":
            self.forms.append(FoundForm(attributes["action"] or "", attributes["method"] or ""))
        elif tag == "input" and (attributes.get("type") != "checkbox" or "checked" in attributes):
            self.forms[-1].fields[attributes["name"] or ""] = attributes.get("value") or ""
        elif tag == "a":
            self._link = attributes["href"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._link is not None and data.strip():
            self.links.setdefault(data.strip(), self._link)


class Visitor:
    """One browser."""

    def __init__(self, app: FastAPI, scheme: str = "http") -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        self.http = httpx.AsyncClient(transport=transport, base_url=f"{scheme}://{HOST}")

    async def __aenter__(self) -> Visitor:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.http.aclose()

    async def get(self, path: str) -> Page:
        return Page(await self.http.get(path))

    async def post(self, path: str, fields: dict[str, str] | list[tuple[str, str]]) -> Page:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Page(await self.http.post(path, content=urlencode(fields), headers=headers))

    async def submit(self, page: Page, action: str, **fields: str) -> Page:
        """Send a form of a page, with some of its fields filled in."""
        return await self.post(action, page.form(action).fields | fields)

    async def log_in(self, secret: str) -> Page:
        return await self.submit(await self.get("/login"), "/login", api_key=secret)
