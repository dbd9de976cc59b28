"""Bounds hold for the whole of what is sent, patterns and odd spellings included."""

from __future__ import annotations

import pytest

from latchgate_server.core import bounds
from latchgate_server.core.addresses import MalformedAddress, parse_range
from latchgate_server.core.key_format import is_whole_secret
from latchgate_server.core.permissions import is_grant
from latchgate_server.core.resources import ResourceScope, is_restriction


def test_the_wildcard_of_a_pattern_counts_towards_its_length() -> None:
    assert is_grant("x" * (bounds.PERMISSION_LENGTH - 2) + ".*")
    assert not is_grant("x" * (bounds.PERMISSION_LENGTH - 1) + ".*")
    assert is_restriction("x" * (bounds.RESOURCE_LENGTH - 2) + "/*")
    assert not is_restriction("x" * (bounds.RESOURCE_LENGTH - 1) + "/*")


@pytest.mark.parametrize("text", ["10.0.0.0/255.0.0.0", "10.0.0.0/0.255.255.255", "10.0.0.0/08", "0.0.0.0/0.0.0.0"])
def test_a_range_is_written_with_a_plain_prefix_length(text: str) -> None:
    with pytest.raises(MalformedAddress):
        parse_range(text)


@pytest.mark.parametrize("path", ["sites/berlin/..;/paris", "sites/berlin/a\x85b", "sites/berlin/\ud800"])
def test_a_path_that_a_service_might_read_differently_is_in_no_scope(path: str) -> None:
    assert not ResourceScope(["sites/berlin/*"]).contains(path)


def test_a_key_id_that_is_no_ascii_has_no_whole_secret() -> None:
    assert not is_whole_secret("\ud800", "0" * 49)
