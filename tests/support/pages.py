"""Pages read back: their tags, attributes and text."""

from html.parser import HTMLParser


class Strict(HTMLParser):
    """Fails at tags that are not closed in order. Keeps the text, the attributes and the ids."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.attributes = [], "", []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object")
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all_of(self, name):
        return [value for _, key, value in self.attributes if key == name]


def parsed(path):
    """The page in this file, once it is seen to be whole."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    page = Strict()
    page.feed(text)
    page.close()
    assert page.open == []
    return page
