"""What a browser would see of a page: its elements, the addresses that it asks for, and its texts."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})


@dataclass
class Page(HTMLParser):
    """A parsed page; whoever asks for it twice gets the same."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(page: Page) -> None:
    """The page is whole, asks for nothing, runs nothing, and its own policy allows its style sheet alone."""
    assert page.html.startswith("<!doctype html>")
    assert page.unbalanced == []
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "foreignobject", "animate"}
    for tag, attributes in page.tags:
        assert "style" not in attributes, f"the policy would drop it: {tag}"
        assert not [name for name in attributes if name.startswith("on")], attributes
        for name in ("src", "href", "xlink:href", "srcset", "background", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/jpeg;base64,"), (tag, value)
    (style,) = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy is not None
    assert f"style-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identities)) == len(identities)
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(identities)
    for chart in page.all("svg"):
        assert chart["role"] == "img"
        assert chart["aria-labelledby"]
    assert all("alt" in image for image in page.all("img"))
    assert '<th scope="col"></th>' not in page.html
    labels = [region["aria-label"] for region in page.all("div") if region.get("role") == "region"]
    assert len(set(labels)) == len(labels)
