"""The registry of users."""

from __future__ import annotations

from engine.users import User, Users


def test_a_user_is_unknown_until_put_and_then_replaced() -> None:
    """Putting twice keeps one entry, with what was said last."""
    users = Users()
    assert users.get("ann") is None
    assert users.name("ann") is None
    users.put("ann", User("Ann", active=True))
    users.put("ann", User("Anna", active=False))
    users._check()
    assert len(users) == 1
    assert users.get("ann") == User("Anna", active=False)
    assert users.name("ann") == "Anna"
    assert users.inactive() == ["ann"]


def test_an_image_is_not_changed_by_what_comes_later() -> None:
    """Names and activity are copied; users who register later are beyond the image's count."""
    users = Users()
    users.put("ann", User("Ann", active=True))
    image = users.capture()
    users.put("ann", User("Other", active=False))
    users.put("ben", User(None, active=True))
    copy = Users.from_image(image)
    copy._check()
    assert len(copy) == 1
    assert copy.get("ann") == User("Ann", active=True)
    copy.put("cleo", User(None, active=True))
    assert len(users) == 2
