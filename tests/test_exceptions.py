"""Exceptions of libraries are replaced without a trace of them."""

from __future__ import annotations

import traceback

import pytest

from django_faceprint.exceptions import Unreachable, replace_exceptions

SECRET = "token=0123456789"


def fail(replacement: BaseException | None = None) -> None:
    with replace_exceptions(ValueError, KeyError, by=lambda error: replacement):
        raise ValueError(SECRET)


def test_the_new_exception_knows_nothing_of_the_old_one() -> None:
    with pytest.raises(Unreachable) as raised:
        fail(Unreachable("no answer"))
    new = raised.value
    assert (new.__cause__, new.__context__) == (None, None)
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(new.__traceback__)]
    assert not any(isinstance(value, ValueError) for names in frames for value in names.values())
    assert SECRET not in "".join(
        traceback.TracebackException.from_exception(new, capture_locals=True).format()
    )


def test_what_is_not_named_and_what_is_not_replaced_passes() -> None:
    with pytest.raises(ValueError, match=SECRET):
        fail(None)
    with pytest.raises(TypeError), replace_exceptions(ValueError, by=lambda error: Unreachable()):
        raise TypeError


def test_without_an_exception_nothing_is_replaced() -> None:
    replaced: list[Exception] = []
    with replace_exceptions(Exception, by=replaced.append):
        done = True
    assert done
    assert replaced == []


def test_an_outer_exception_stays_the_context_of_what_is_handled_inside() -> None:
    """Raised while something else is handled, the new exception does not speak of it either."""
    try:
        raise TypeError(SECRET)
    except TypeError:
        with pytest.raises(Unreachable) as raised:
            fail(Unreachable("no answer"))
    assert raised.value.__context__ is None
