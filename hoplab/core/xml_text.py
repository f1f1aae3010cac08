"""Texts for XML documents."""

from __future__ import annotations

import re

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters invalid in XML 1.0


def xml_text(text: str) -> str:
    """Return a text in which what XML cannot have is replaced.

    >>> xml_text("a\\x00b")
    'a\ufffdb'
    """
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
