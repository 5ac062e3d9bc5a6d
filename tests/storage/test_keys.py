"""Keys sort as their tuples do, and come back as they went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.storage import Element, below, pack, unpack

Tuple = tuple[Element, ...]

INTS = st.integers(0, 2**64 - 1) | st.integers(0, 300)
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\0\x01a\xff"), max_size=6)
BYTES = st.binary(max_size=6) | st.lists(st.sampled_from([b"\0", b"\1", b"\xfe", b"\xff"]), max_size=4).map(b"".join)
TUPLES = st.lists(INTS | TEXTS | BYTES, max_size=4).map(tuple)
ORDER = {bytes: 0, str: 1, int: 2}


def rank(elements: Tuple) -> list[tuple[int, Element]]:
    """Tuples of mixed types sort by the type of their first differing element, then by its value."""
    return [(ORDER[type(element)], element) for element in elements]


@given(TUPLES)
def test_a_key_gives_its_tuple_back(elements: Tuple) -> None:
    assert unpack(pack(elements)) == elements


@given(TUPLES, TUPLES)
def test_keys_sort_exactly_as_their_tuples_do(one: Tuple, other: Tuple) -> None:
    assert (pack(one) < pack(other)) == (rank(one) < rank(other))


@given(TUPLES, TUPLES)
def test_below_holds_exactly_what_begins_with_the_elements(beginning: Tuple, elements: Tuple) -> None:
    range_ = below(beginning)

    assert (pack(elements) in range_) == (elements[: len(beginning)] == beginning)
    assert pack(beginning + elements) in range_


@given(st.binary(max_size=12))
def test_bytes_that_are_no_key_are_refused_with_a_value_error(raw: bytes) -> None:
    try:
        elements = unpack(raw)
    except ValueError:
        return

    assert isinstance(elements, tuple)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_an_int_beyond_64_bits_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 2"):
        pack((number,))


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        pack(("\ud800",))


def test_an_element_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"not 1\.5"):
        pack((1.5,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
