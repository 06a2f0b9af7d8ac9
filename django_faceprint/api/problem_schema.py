"""The shape of a problem (RFC 9457), as the schema describes it."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers


class Described(serializers.Serializer):
    """Named in an OpenAPI description so that it does not meet a ``Session`` or ``Plan`` of the host's."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__name__.removesuffix("Serializer")
        cls.Meta = type("Meta", (), {"ref_name": f"Faceprint{name}"})  # type: ignore[attr-defined]


class FieldProblemSerializer(Described):
    """One refused value."""

    field = serializers.CharField(allow_null=True)
    code = serializers.CharField()
    detail = serializers.CharField()


class UpstreamProblemSerializer(Described):
    """What Baidu answered; give ``log_id`` to Baidu's support."""

    code = serializers.CharField()
    log_id = serializers.CharField()


class ProblemSerializer(Described):
    """A problem (RFC 9457). No value that the caller sent is repeated in it."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text=_("What went wrong, for programs."))
    field = serializers.CharField(allow_null=True, help_text=_("The input that it is about, if one."))
    session = serializers.UUIDField(required=False, help_text=_("The session that it is about, if one."))
    errors = FieldProblemSerializer(many=True, required=False)  # type: ignore[assignment]
    upstream = UpstreamProblemSerializer(required=False)
    retry_after = serializers.IntegerField(required=False, help_text=_("Seconds."))
