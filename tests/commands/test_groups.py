"""``faceprint_groups``: the least that each task needs, however often it is run."""

from __future__ import annotations

import io

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("faceprint_groups", *arguments, stdout=out)
    return out.getvalue()


def codenames(name: str) -> set[str]:
    return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))


def test_four_groups_in_the_sites_language() -> None:
    told = run()
    names = list(Group.objects.order_by("pk").values_list("name", flat=True))
    assert names == ["人脸认证客服", "人脸认证审核", "人脸认证合规", "人脸认证管理员"]
    assert [line.partition(":")[0] for line in told.splitlines()] == names


def test_nobody_has_more_than_the_task_needs() -> None:
    run("--language", "en")
    support, review = codenames("Faceprint support"), codenames("Faceprint review")
    compliance, administration = codenames("Faceprint compliance"), codenames("Faceprint administration")
    assert support == {"view_verificationsession", "refresh_session"}
    assert review - support == {"view_media", "reveal_identity"}
    assert {"erase_person", "view_accesslog", "download_media"} <= compliance
    # The administrator sees no person: neither record nor file nor who looked.
    assert not administration & {
        *("view_verificationsession", "view_all_sessions", "view_media", "download_media"),
        *("reveal_identity", "view_accesslog", "erase_person", "export_masked", "export_sensitive"),
    }
    everyone = support | review | compliance | administration
    assert not everyone & {"view_all_sessions", "export_sensitive"}
    assert not [name for name in everyone if name.startswith(("add_", "change_", "delete_"))]


def test_running_again_repairs_and_adds_nothing() -> None:
    run("--language", "en")
    group = Group.objects.get(name="Faceprint support")
    group.permissions.add(Permission.objects.get(codename="reveal_identity"))
    group.permissions.add(Permission.objects.get(codename="view_logentry"))
    group.permissions.remove(Permission.objects.get(codename="refresh_session"))
    run("--language", "zh-hans")
    assert Group.objects.count() == 4
    assert codenames("Faceprint support") == {"view_verificationsession", "refresh_session", "view_logentry"}


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(CommandError, match="xx"):
        run("--language", "xx")
    assert not Group.objects.exists()


def test_before_migrate_it_says_so() -> None:
    Permission.objects.filter(codename="refresh_session").delete()
    with pytest.raises(CommandError, match="refresh_session"):
        run()
    assert not Group.objects.exists()
