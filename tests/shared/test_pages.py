"""Page tokens."""

import base64
import json
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.errors import Invalid, Reason
from services.shared.pages import page_key, page_token


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_a_token_gives_back_the_key_it_was_made_of() -> None:
    some_id = uuid4()
    assert page_key(page_token("2026-03-01T12:00:00+00:00", some_id), 2) == ["2026-03-01T12:00:00+00:00", str(some_id)]


def test_no_token_is_the_first_page() -> None:
    assert page_key("", 1) is None


@pytest.mark.parametrize("token", ["!", "AAAA", "é", _encoded({"a": 1}), _encoded([1]), _encoded(["a"]), "W1sK" * 90])
def test_a_token_of_another_make_is_refused(token: str) -> None:
    with pytest.raises(Invalid) as refused:
        page_key(token, 2)
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID


@given(st.text())
def test_no_text_does_worse_than_being_refused(token: str) -> None:
    try:
        key = page_key(token, 1)
    except Invalid:
        return
    assert key is None or [type(part) for part in key] == [str]
