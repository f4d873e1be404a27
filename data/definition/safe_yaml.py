"""A yaml from anywhere -> plain values: nothing runs, nothing explodes, and names stay the text that was written."""

from pathlib import Path
from typing import Any

import yaml

from data.formats.text import NotText, decode_text
from utils.errors import UserError

MAX_BYTES = 2 * 2**20
MAX_VALUES = 200_000  # with every alias written out; a yaml of 10,000 classes has 20,000
TEXT = "tag:yaml.org,2002:str"


def read_yaml(file: Path, text_keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """The mapping that a yaml holds; what stands under `text_keys` stays text: no, yes, 1e3 and 010 are names there."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise NotText(f"more than {MAX_BYTES // 2**20} MB")
        text, _ = decode_text(file.read_bytes())
        _check_size(text, file)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if isinstance(node, yaml.MappingNode):
                _prepare(node, file, text_keys)
            content = loader.construct_document(node) if node else None
        finally:
            loader.dispose()
    except yaml.YAMLError as e:
        tab = " Indent with spaces, not tabs." if "\\t" in str(e) else ""
        raise UserError(f"{file} is not a readable yaml: {e}.{tab}") from None
    except (NotText, OSError, RecursionError, ValueError, TypeError) as e:  # of the values: a date of month 13
        raise UserError(f"{file} is not a readable yaml: {str(e)[:200]}.") from None
    if not isinstance(content, dict):
        holds = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise UserError(f"{file} {holds}. A dataset yaml has 'path', 'train', 'val' and 'names', each with its colon.")
    return content


def _check_size(text: str, file: Path) -> None:
    """Refuse aliases that unfold into more than a dataset yaml can hold; counted on the events, unfolding nothing."""
    total, sizes, open_nodes = 0, {}, []  # sizes: values below each anchor; open_nodes: (anchor, total before it)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, MAX_VALUES)  # an alias inside its own anchor never ends
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > MAX_VALUES or len(open_nodes) > 50:
            raise UserError(
                f"{file}: its aliases or its nesting unfold without end. Write the values out, without & and *."
            )


def _prepare(root: yaml.MappingNode, file: Path, text_keys: tuple[str, ...]) -> None:
    """Refuse keys that stand twice (YAML would drop the first without a word) and make text of what is to be text."""
    _refuse_twice(root, file, "")
    for key, value in root.value:
        if key.value in text_keys:
            if isinstance(value, yaml.MappingNode):
                _refuse_twice(value, file, f" under '{key.value}'")
            _as_text(value)


def _refuse_twice(node: yaml.MappingNode, file: Path, where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line, name = key.start_mark.line + 1, key.value
        if not isinstance(key, yaml.ScalarNode) or name == "<<":
            continue
        if name in lines:
            raise UserError(f"{file}, line {line}: '{name}' is there twice{where}, first in line {lines[name]}.")
        lines[name] = line


def _as_text(node: yaml.Node) -> None:
    """Scalars keep the text that was written, except an empty one, which stays null; tags of programs stay refused."""
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    for child in (node, *children):
        if isinstance(child, yaml.ScalarNode) and child.tag.startswith("tag:yaml.org,2002:") and child.value:
            if not child.tag.startswith("tag:yaml.org,2002:python"):
                child.tag = TEXT
