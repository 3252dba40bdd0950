"""Comments in the source of a dataclass, which explain its fields."""

import ast
import inspect
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from io import StringIO


@cache
def field_comments(kind: type) -> Mapping[str, str]:
    """The comment of each field: behind it, or on the lines directly above."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if is_dataclass(owner):
            found |= dict(_own_comments(owner))
    return found


def _own_comments(kind: type) -> Iterator[tuple[str, str]]:
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(kind))
    except (OSError, TypeError):  # of a class that was made without source
        return
    told = {
        token.start[0]: (token.string.lstrip("# "), not token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT and "noqa" not in token.string
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        lines, above = list[str](), node.lineno - 1
        while above in told and not told[above][1]:
            lines.insert(0, told[above][0])
            above -= 1
        lines += [told[line][0] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in told]
        if lines:
            yield node.target.id, " ".join(lines)
