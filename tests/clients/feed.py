"""Checks an Atom feed with feedparser, and by the rules of RFC 4287.

Standard input: {"file": "…", "entries": N, "self": "…" or null}.
"""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import feedparser

ATOM = "{http://www.w3.org/2005/Atom}"
# RFC 4287, section 3.3: RFC 3339 with an uppercase T and Z.
DATE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
# RFC 4151.
TAG = re.compile(r"^tag:[a-z0-9.-]+,\d{4}-\d\d-\d\d:[A-Za-z0-9%._/-]+$")

place = json.load(sys.stdin)
with open(place["file"], "rb") as file:
    text = file.read()

parsed = feedparser.parse(text)
assert parsed.bozo == 0, parsed.bozo_exception
assert parsed.version == "atom10", parsed.version
assert parsed.encoding == "utf-8", parsed.encoding
assert len(parsed.entries) == place["entries"], len(parsed.entries)
for entry in parsed.entries:
    assert entry.id and entry.title and entry.author, entry
    assert entry.updated_parsed and entry.published_parsed, entry
    assert entry.content[0].type == "text/html", entry
    for link in entry.get("links", []):
        assert link.href.startswith(("http://", "https://")), link


def only(parent, name):
    found = parent.findall(ATOM + name)
    assert len(found) == 1, (name, len(found))
    assert found[0].text, name
    return found[0].text


feed = ElementTree.fromstring(text)
assert feed.tag == ATOM + "feed"
ids = set()
for element in [feed, *feed.findall(ATOM + "entry")]:
    identity = only(element, "id")
    assert TAG.match(identity), identity
    assert identity not in ids, identity
    ids.add(identity)
    only(element, "title")
    assert DATE.match(only(element, "updated"))
for entry in feed.findall(ATOM + "entry"):
    # RFC 4287, section 4.1.2: an author in each entry, or in the feed.
    only(entry.find(ATOM + "author"), "name")
    only(entry, "content")
    # "… MUST NOT contain more than one atom:link element with a rel attribute value of "alternate" that has the same
    # combination of type and hreflang attribute values."
    alternates = [link for link in entry.findall(ATOM + "link") if link.get("rel") == "alternate"]
    assert len(alternates) <= 1, alternates
selves = [link.get("href") for link in feed.findall(ATOM + "link") if link.get("rel") == "self"]
assert selves == ([place["self"]] if place["self"] else []), selves
print(len(parsed.entries), "entries checked")
