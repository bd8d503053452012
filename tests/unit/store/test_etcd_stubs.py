"""What protoc makes of the part of etcd's API that is used is what is committed."""

from __future__ import annotations

import pytest

import etcd_stubs


@pytest.mark.parametrize("path", etcd_stubs.MADE, ids=lambda path: path.name)
def test_the_messages_are_what_the_file_makes(path: object) -> None:
    made = {each: text for each, text in etcd_stubs.generate().items() if each == path}
    assert made == {each: (etcd_stubs.SERVICES / each).read_text() for each in made}, "make stubs"
    assert len(made) == 1
