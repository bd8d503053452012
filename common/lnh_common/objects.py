"""Search: which attributes are indexed, what an index tag is made over, and when an object matches.

The store keeps a blind tag `HMAC(index key, len(name) || name || value)` for each attribute of
`SEARCH_ATTRIBUTES`; an equality search asks for tags, and the HSM rechecks what it unsealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lnh_common.attributes import Attribute, Attributes, AttributeValue

SEARCH_ATTRIBUTES: Final = (Attribute.LABEL, Attribute.ID, Attribute.CLASS, Attribute.KEY_TYPE)


def search_value(value: AttributeValue) -> bytes:
    """The bytes of a searchable attribute's value; an int as 4, big-endian."""
    match value:
        case str():
            return value.encode()
        case bytes():
            return value
        case int():
            return value.to_bytes(4, "big")
        case _:
            raise AssertionError(f"no searchable attribute is a {type(value).__name__}")


def search_values(attributes: Mapping[Attribute, AttributeValue]) -> list[tuple[bytes, bytes]]:
    """(name, value) of each searchable attribute that is there and not empty: what tags are made over.

    An empty LABEL or ID has no tag: to search for one is to search by the other attributes and recheck.
    """
    return [
        (attribute.name.encode(), value)
        for attribute in SEARCH_ATTRIBUTES
        if attribute in attributes and (value := search_value(attributes[attribute]))
    ]


def matches(attributes: Attributes, template: Mapping[Attribute, AttributeValue]) -> bool:
    """Whether an object has every attribute of the template with just that value."""
    return all(name in attributes and attributes[name] == value for name, value in template.items())
