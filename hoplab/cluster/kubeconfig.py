"""A lab's context in the text of a user's kubeconfig, added and removed while everything else stays as it is.

The text is edited, not written anew: comments, order and quoting of others stay byte for byte. YAML's own positions say
where an entry begins and ends, and the result is parsed and compared before it is returned.

An entry belongs to the lab whose id is in the cluster's extension ``hoplab``. Extensions survive `kubectl config`,
which writes the file anew without comments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from hoplab.core.errors import FileError

EXTENSION = "hoplab"
UNEDITABLE = "written in a way that can't be edited without a change of anything else"
SECTIONS = ("clusters", "contexts", "users")
SKELETON = 'apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\ncurrent-context: ""\n'
Json = dict[str, Any]


@dataclass(frozen=True)
class Entries:
    """What a kubeconfig says of one lab: a cluster, a user and a context, all of one name."""

    owner: str  # id of the lab
    name: str
    cluster: Json
    user: Json

    def items(self) -> dict[str, Json]:
        """Return the item for each of ``SECTIONS``."""
        return {
            "clusters": {"cluster": self.cluster, "name": self.name},
            "contexts": {"context": {"cluster": self.name, "user": self.name}, "name": self.name},
            "users": {"name": self.name, "user": self.user},
        }


def entries(lab_kubeconfig: str, *, owner: str, name: str, server: str) -> Entries:
    """Return the entries of a lab: those of its own kubeconfig, with another URL of the same API server.

    The certificate is still verified for the host of the lab's own URL. Raise FileError where that is no kubeconfig.
    """
    config = _parsed(lab_kubeconfig)
    try:
        found = {section: {item["name"]: item for item in config[section]} for section in SECTIONS}
        context = found["contexts"][config["current-context"]]["context"]
        cluster = dict(found["clusters"][context["cluster"]]["cluster"])
        user = dict(found["users"][context["user"]]["user"])
        address = re.fullmatch(r"https://\[?([^/\]]+?)\]?:\d+/?", cluster["server"])
    except (KeyError, TypeError):
        address = None
    if address is None:
        raise FileError("the lab's own kubeconfig has no usable context", remedy="./lab up writes it again")
    mark = {"name": EXTENSION, "extension": {"lab": owner}}
    cluster |= {"server": server, "tls-server-name": cluster.get("tls-server-name", address[1]), "extensions": [mark]}
    return Entries(owner, name, cluster, user)


def alone(lab: Entries) -> str:
    """Return the kubeconfig with this lab alone."""
    text = SKELETON.replace('current-context: ""', f"current-context: {lab.name}")
    return _added(text, lab.items())


def name_for(text: str, owner: str, wanted: str, other: str) -> str:
    """Return the name that a lab's entries have or get: ``other`` where ``wanted`` belongs to somebody else."""
    config = _parsed(text)
    if own := _names_of(config, owner):
        return own[0]
    taken = {item.get("name") for section in SECTIONS for item in _items(config, section)}
    return other if wanted in taken else wanted


def merged(text: str, lab: Entries) -> str:
    """Return the kubeconfig with the lab's entries; unchanged where it has them.

    Contexts of the lab stay as they are: the user may have renamed one, or given it a namespace. Raise FileError where
    the text can't be read, or can't be edited without a change of anything else.
    """
    config = _parsed(text)
    wanted = lab.items()
    if any(_cluster_of(item) == lab.name for item in _items(config, "contexts")):
        del wanted["contexts"]
    if all(item in _items(config, section) for section, item in wanted.items()):
        return text
    cleaned, _ = without(text, lab.owner, keep_contexts=True)
    try:
        result = _added(cleaned, wanted) if _parsed(cleaned) else _ended(cleaned) + alone(lab)
    except yaml.YAMLError:
        raise FileError(UNEDITABLE) from None
    expected = _parsed(cleaned) or {**_parsed(SKELETON), "current-context": lab.name}
    for section, item in wanted.items():
        expected = {**expected, section: [*_items(expected, section), item]}
    return _checked(result, expected)


def context_of(text: str, owner: str) -> str:
    """Return the name of the lab's first context, "" where it has none."""
    config = _parsed(text)
    names = _names_of(config, owner)
    return next((str(item.get("name")) for item in _items(config, "contexts") if _cluster_of(item) in names), "")


def without(text: str, owner: str, *, keep_contexts: bool = False) -> tuple[str, list[str]]:
    """Return the kubeconfig without the lab's entries, and the names of the removed contexts.

    A current context that is removed becomes none. Raise FileError as ``merged`` does.
    """
    config = _parsed(text)
    names = _names_of(config, owner)
    if not names:
        return text, []
    gone: dict[str, list[Json]] = {
        "clusters": [item for item in _items(config, "clusters") if item.get("name") in names],
        "contexts": [item for item in _items(config, "contexts") if _cluster_of(item) in names and not keep_contexts],
        "users": [item for item in _items(config, "users") if item.get("name") in names],
    }
    contexts = [str(item.get("name")) for item in gone["contexts"]]
    expected = {**config, **{key: [item for item in _items(config, key) if item not in gone[key]] for key in gone}}
    unset = config.get("current-context") in contexts
    if unset:
        expected["current-context"] = ""
    try:
        for section, items in gone.items():
            text = _cut(text, section, [str(item.get("name")) for item in items])
        if unset:
            value = _top(text)["current-context"]
            text = text[: value.start_mark.index] + '""' + text[value.end_mark.index :]
    except yaml.YAMLError:
        raise FileError(UNEDITABLE) from None
    return _checked(text, expected), contexts


def _parsed(text: str) -> Json:
    """Return the top mapping of a kubeconfig; raise FileError for anything else."""
    try:
        found = yaml.safe_load(text)
        _top(text)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise FileError(f"not YAML: {where}{getattr(error, 'problem', None) or type(error).__name__}") from None
    config = {} if found is None else found
    if not isinstance(config, dict) or not all(_is_list(config.get(section)) for section in SECTIONS):
        raise FileError("not a kubeconfig")
    return config


def _is_list(section: Any) -> bool:
    return section is None or (isinstance(section, list) and all(isinstance(item, dict) for item in section))


def _items(config: Json, section: str) -> list[Json]:
    return config.get(section) or []


def _names_of(config: Json, owner: str) -> list[str]:
    """Return the names of the clusters that a lab owns."""
    mark = {"name": EXTENSION, "extension": {"lab": owner}}
    return [item["name"] for item in _items(config, "clusters") if mark in _extensions(item) and "name" in item]


def _extensions(item: Json) -> list[Any]:
    cluster = item.get("cluster")
    found = cluster.get("extensions") if isinstance(cluster, dict) else None
    return found if isinstance(found, list) else []


def _cluster_of(item: Json) -> Any:
    context = item.get("context")
    return context.get("cluster") if isinstance(context, dict) else None


def _checked(text: str, expected: Json) -> str:
    """Return the edited text if it says what it has to; raise FileError otherwise. An empty list is none."""

    def meaning(config: Json) -> Json:
        return {key: value for key, value in config.items() if value not in (None, [])}

    try:
        right = meaning(_parsed(text)) == meaning(expected)
    except FileError:
        right = False
    if not right:
        raise FileError(UNEDITABLE)
    return text


def _top(text: str) -> Mapping[str, yaml.Node]:
    """Return the nodes below the top mapping, with their places in the text; raise YAMLError where one is twice."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        return {}
    if root.flow_style:
        raise FileError("written in braces, as JSON is")
    found: dict[str, yaml.Node] = {}
    for key, value in root.value:
        if key.value in found:
            raise yaml.composer.ComposerError(None, None, f"{key.value} is there twice", key.start_mark)
        found[str(key.value)] = value
    return found


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _ended(text: str) -> str:
    """Return the text with its last line ended."""
    return text if not text or text.endswith("\n") else text + _newline(text)


def _added(text: str, items: Mapping[str, Json]) -> str:
    for section, item in items.items():
        text = _append(text, section, item)
    return text


def _append(text: str, section: str, item: Json) -> str:
    """Return the text with one more item at the end of a section."""
    newline, node = _newline(text), _top(text).get(section)
    if node is None:
        return _ended(text) + f"{section}:{newline}{_block(item, 0, newline)}{newline}"
    if isinstance(node, yaml.SequenceNode) and node.value and node.flow_style:
        last = node.value[-1].end_mark.index
        return f"{text[:last]}, {json.dumps(item)}{text[last:]}"
    if isinstance(node, yaml.SequenceNode) and node.value:
        last = _line_end(text, _end(node, text))
        return text[:last] + newline + _block(item, node.start_mark.column, newline) + text[last:]
    start, end = node.start_mark.index, node.end_mark.index
    return text[:start] + newline + _block(item, 0, newline) + text[end:]


def _block(item: Json, indent: int, newline: str) -> str:
    lines = yaml.safe_dump([item], sort_keys=True, width=2**31, allow_unicode=True).splitlines()
    return newline.join(" " * indent + line for line in lines)


def _cut(text: str, section: str, names: list[str]) -> str:
    """Return the text without the items of these names in a section."""
    node = _top(text).get(section)
    if not names or not isinstance(node, yaml.SequenceNode):
        return text
    spans, before = [], node.start_mark.index
    for number, item in enumerate(node.value):
        end = _end(item, text)
        if _name(item) in names:
            spans.append(_span(text, node, number, before, end))
        before = end
    for start, end in reversed(spans):
        text = text[:start] + text[end:]
    if spans and len(spans) == len(node.value) and not node.flow_style:
        key = re.compile(rf"""^["']?{section}["']? *:( ?)""", re.MULTILINE).search(text)
        assert key
        text = text[: key.end()] + ("[]" if key[1] else " []") + text[key.end() :]
    return text


def _span(text: str, node: yaml.SequenceNode, number: int, before: int, end: int) -> tuple[int, int]:
    """Return the first and the last place (exclusive) of an item with what joins it to its neighbours."""
    if node.flow_style:
        if number:
            return node.value[number - 1].end_mark.index, end
        return node.value[0].start_mark.index, node.value[1].start_mark.index if len(node.value) > 1 else end
    dash = re.compile(rf"\r?\n {{{node.start_mark.column}}}-(?=\s)")
    found = dash.search(text, max(0, before - node.start_mark.column - 2))
    if found is None:
        raise FileError(UNEDITABLE)
    return found.start(), end


def _name(item: yaml.Node) -> str:
    pairs = item.value if isinstance(item, yaml.MappingNode) else ()
    return next((str(value.value) for key, value in pairs if key.value == "name"), "")


def _end(node: yaml.Node, text: str) -> int:
    """Return where the content of a node ends; the end of a block collection in PyYAML is the next token."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    end = int(node.end_mark.index)
    while isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") and text[end - 1 : end] in ("\n", "\r", " "):
        end -= 1  # a block scalar ends where the next token begins
    return end


def _line_end(text: str, place: int) -> int:
    """Return where the line of a place ends, without its line break."""
    found = re.compile(r"\r?\n|\Z").search(text, place)
    assert found
    return found.start()
