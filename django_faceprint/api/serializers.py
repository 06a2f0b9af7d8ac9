"""The JSON of the API: shapes and sizes of what comes in, names of what goes out."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.request import Request
from rest_framework.reverse import reverse
from rest_framework.settings import api_settings

from django_faceprint.audit.access import MAX_REASON_LENGTH
from django_faceprint.client.inputs import CONTROLS, MAX_IMAGE_BASE64
from django_faceprint.clock import now
from django_faceprint.evidence.erasure import MAX_REASON_LENGTH as MAX_ERASURE_REASON_LENGTH
from django_faceprint.evidence.expected import describe_absence
from django_faceprint.models import MediaAsset, Plan, VerificationAttempt, VerificationSession
from django_faceprint.privacy.keys import SealBroken
from django_faceprint.privacy.masking import mask_card
from django_faceprint.verification import consent as consents
from django_faceprint.verification import h5_url
from django_faceprint.verification.consent import MAX_CONSENT_REFERENCE_LENGTH
from django_faceprint.verification.texts import MAX_REFERENCE_LENGTH

from .permissions import is_creator, may_view_media
from .problem_schema import Described
from .schema import field_schema

Status = VerificationSession.Status
Verdict = VerificationSession.Verdict

#: Seconds between two looks of a polling client, at least and at most.
MIN_WAIT, MAX_WAIT = 2, 30
#: Sessions after which the same person may simply be sent through a new one.
CAN_RETRY = frozenset({Status.FAILED, Status.EXPIRED, Status.ABANDONED})

#: What stands for a name or number that cannot be decrypted.
UNREADABLE = "****"

# A name of a field, as opposed to a value that slipped into a name's place.
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")


# --- what comes in ------------------------------------------------------------------------------


class StrictSerializer(Described):
    """Refuses names that it does not know: a misspelt ``identity`` must not start a session without one."""

    def to_internal_value(self, data: Any) -> Any:
        """As usual, but nothing is ignored."""
        if isinstance(data, Mapping):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = sorted(str(name) for name in data if name not in known)
            if unknown:
                problem = ErrorDetail(str(_("There is no such field.")), code="unknown_field")
                raise serializers.ValidationError({_shown_name(name): [problem] for name in unknown})
        return super().to_internal_value(data)


def _shown_name(name: str) -> str:
    return name if _FIELD_NAME.fullmatch(name) else api_settings.NON_FIELD_ERRORS_KEY


class WordField(serializers.ChoiceField):
    """One of several values; REST framework's own message would repeat the refused one."""

    default_error_messages = {"invalid_choice": _("This is not one of the allowed values.")}


class IdentitySerializer(StrictSerializer):
    """Who must appear (API reference 3.2)."""

    name = serializers.CharField(max_length=200, help_text=_("As on the document, 1 to 50 characters."))
    number = serializers.CharField(max_length=100)
    certificate_type = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=4,
        help_text=_(
            "0 resident identity card, 1 mainland travel permit for Hong Kong, Macao and Taiwan residents, "
            "2 permanent residence of foreigners, 3 passport of Chinese citizens abroad, 4 residence permit "
            "for Hong Kong, Macao and Taiwan residents."
        ),
    )


@field_schema({"type": "string", "format": "byte", "maxLength": MAX_IMAGE_BASE64})
class PictureField(serializers.Field):
    """A picture: base64 in JSON, a file in a form. Gives bytes."""

    default_error_messages = {
        "base64": _("This is not base64."),
        "image_size": _("The picture file is too large: at most %(limit)d bytes."),
    }

    def to_internal_value(self, data: Any) -> bytes:
        """The bytes."""
        if isinstance(data, UploadedFile):
            return bytes(data.read())
        if not isinstance(data, str):
            self.fail("base64")
        if len(data) > MAX_IMAGE_BASE64:
            raise serializers.ValidationError(
                self.error_messages["image_size"] % {"limit": MAX_IMAGE_BASE64 // 4 * 3}, code="image_size"
            )
        content: bytes | None = None
        try:
            content = base64.b64decode(data.encode("ascii"), validate=True)
        except (ValueError, binascii.Error):
            content = None
        if content is None:
            self.fail("base64")
        return content

    def to_representation(self, value: Any) -> Any:
        """Pictures only come in."""
        raise NotImplementedError("A picture is never given back.")


class MatchImageSerializer(StrictSerializer):
    """The picture to compare with (API reference 3.3): PNG, JPEG or BMP, below 1920×1080."""

    image = PictureField(help_text=_("Base64, at most 10 MB of it."))
    quality_control = serializers.CharField(default="NONE", max_length=10, help_text=f"{', '.join(CONTROLS)}")
    liveness_control = serializers.CharField(
        default="NONE", max_length=10, help_text=f"{', '.join(CONTROLS)}"
    )


class MatchImageForm(MatchImageSerializer):
    """The same as a form; for the schema only."""

    image = serializers.FileField()  # type: ignore[assignment]


class TimeField(serializers.DateTimeField):
    """ISO 8601 in UTC, whatever the host has set for its own API."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso-8601", default_timezone=UTC, **kwargs)


class ZonedTimeField(TimeField):
    """A time that comes in; without a zone it could be any of several hours."""

    default_error_messages = {"naive": _("The time needs a time zone.")}

    def enforce_timezone(self, value: datetime) -> datetime:
        """The time, if it says where."""
        if value.tzinfo is None:
            self.fail("naive")
        return value


class StrictBooleanField(serializers.BooleanField):
    """True or false, and no text that might mean either."""

    def to_internal_value(self, data: Any) -> bool:
        """The truth value."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class ConsentSerializer(StrictSerializer):
    """The person's consent: where it is on record, which notice was shown when and where, and to what."""

    reference = serializers.CharField(
        max_length=MAX_CONSENT_REFERENCE_LENGTH,
        help_text=_("Where it is on record at your place; kept encrypted."),
    )
    notice_version = serializers.CharField(default="", allow_blank=True, max_length=MAX_REFERENCE_LENGTH)
    given_at = ZonedTimeField(allow_null=True, default=None, help_text=_("With a time zone."))
    channel = serializers.CharField(
        default="", allow_blank=True, max_length=MAX_REFERENCE_LENGTH, help_text=_("App, website, counter …")
    )
    separate = StrictBooleanField(default=False, help_text=_("For this purpose alone (单独同意)."))
    names_recipient = StrictBooleanField(
        default=False, help_text=_("The notice says that Baidu gets the face.")
    )
    alternative_offered = StrictBooleanField(default=False, help_text=_("Another way to verify was offered."))
    guardian_reference = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=MAX_CONSENT_REFERENCE_LENGTH,
        help_text=_("Where a guardian's consent is on record; for children under 14."),
    )


class ReasonSerializer(StrictSerializer):
    """Why evidence is to be erased."""

    reason = serializers.CharField(
        default="", allow_blank=True, max_length=MAX_ERASURE_REASON_LENGTH, help_text=_("Kept encrypted.")
    )


class StartSerializer(StrictSerializer):
    """What starts a session."""

    plan = serializers.CharField(max_length=20, help_text=_("Plan ID (方案ID)."))
    reference = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=MAX_REFERENCE_LENGTH,
        help_text=_("Your own number for this verification. Stored in clear: no personal data."),
    )
    purpose = serializers.CharField(default="", allow_blank=True, max_length=MAX_REFERENCE_LENGTH)
    identity = IdentitySerializer(required=False)
    match_image = MatchImageSerializer(required=False)
    return_url = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=2000,
        help_text=_("Where the person goes afterwards; its host must be in RETURN_URL_HOSTS."),
    )
    consent = ConsentSerializer(required=False)


class SessionFilterSerializer(StrictSerializer):
    """The filters of the list."""

    reference = serializers.CharField(required=False, max_length=MAX_REFERENCE_LENGTH)
    plan = serializers.CharField(required=False, max_length=20)
    status = WordField(choices=Status.choices, required=False)
    verdict = WordField(choices=Verdict.choices, required=False)
    archive_state = WordField(choices=VerificationSession.ArchiveState.choices, required=False)
    cursor = serializers.CharField(required=False, max_length=500)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=200)


# --- what goes out ------------------------------------------------------------------------------


class DeadlinesSerializer(Described):
    """Until when Baidu keeps the evidence, at the earliest."""

    results = TimeField(source="results_deadline", allow_null=True)
    media = TimeField(source="media_deadline", allow_null=True)


class ScoresSerializer(Described):
    """What Baidu measured."""

    score = serializers.FloatField(allow_null=True, help_text=_("Similarity, 0 to 100."))
    liveness_score = serializers.FloatField(allow_null=True)
    spoofing = serializers.FloatField(source="spoofing_score", allow_null=True)


class ErrorSerializer(Described):
    """The last thing that went wrong."""

    code = serializers.CharField(source="error_code")
    message = serializers.SerializerMethodField()
    log_id = serializers.CharField(source="error_log_id", help_text=_("Baidu's number of the request."))

    def get_fields(self) -> dict[str, serializers.Field]:
        """``class`` is no name for a class's attribute."""
        return {"class": serializers.CharField(source="error_class"), **super().get_fields()}

    def get_message(self, session: VerificationSession) -> str:
        """Baidu's words; mistakes of our own set-up are for operators, who find them in the admin."""
        if session.error_class in ("configuration", "internal"):
            return str(_("The service is not set up correctly; its operators have to act."))
        return session.error_message


class MaskedIdentitySerializer(Described):
    """Who was submitted or confirmed, masked."""

    name = serializers.CharField(source="masked_name")
    number = serializers.CharField(source="masked_number")
    certificate_type = serializers.IntegerField(allow_null=True)


class SessionSummarySerializer(Described):
    """A session as lists show it."""

    id = serializers.UUIDField(source="public_id")
    status = serializers.ChoiceField(choices=Status.choices)
    verdict = serializers.ChoiceField(choices=Verdict.choices)
    archive_state = serializers.ChoiceField(choices=VerificationSession.ArchiveState.choices)
    plan = serializers.CharField(source="plan.plan_id")
    reference = serializers.CharField()
    purpose = serializers.CharField()
    environment = serializers.ChoiceField(choices=VerificationSession.Environment.choices)
    created_at = TimeField()
    expires_at = TimeField(allow_null=True)
    returned_at = TimeField(allow_null=True)
    verified_at = TimeField(allow_null=True)
    archived_at = TimeField(allow_null=True)
    erased_at = TimeField(allow_null=True)
    deadlines = DeadlinesSerializer(source="*")
    scores = ScoresSerializer(source="*")
    threshold = serializers.FloatField(allow_null=True)
    is_demote = serializers.BooleanField(source="is_demoted", allow_null=True)
    error = serializers.SerializerMethodField()
    can_retry = serializers.SerializerMethodField()
    retry_after = serializers.SerializerMethodField()
    identity = serializers.SerializerMethodField()

    @field_schema(ErrorSerializer(allow_null=True))
    def get_error(self, session: VerificationSession) -> dict[str, Any] | None:
        """None when nothing is wrong."""
        return dict(ErrorSerializer(session).data) if session.error_class else None

    def get_can_retry(self, session: VerificationSession) -> bool:
        """Whether a new session for the same person makes sense."""
        return session.status in CAN_RETRY

    def get_retry_after(self, session: VerificationSession) -> int | None:
        """Seconds after which asking again is worth while; None when the verdict is known."""
        if session.verdict != Verdict.PENDING:
            return None
        if session.wake_at is None or session.is_leased:
            return MIN_WAIT
        seconds = math.ceil((session.wake_at - now()).total_seconds())
        return min(max(seconds, MIN_WAIT), MAX_WAIT)

    @field_schema(MaskedIdentitySerializer(allow_null=True))
    def get_identity(self, session: VerificationSession) -> dict[str, Any] | None:
        """None while nobody is known; hidden altogether where a key is missing, so that lists go on."""
        try:
            masked = dict(MaskedIdentitySerializer(session).data)
        except SealBroken:
            masked = {"name": UNREADABLE, "number": UNREADABLE, "certificate_type": session.certificate_type}
        return masked if masked["name"] or masked["number"] else None


class ConsentSummarySerializer(Described):
    """What is on record of the consent; references stay where they are."""

    recorded_at = TimeField()
    given_at = TimeField(allow_null=True)
    notice_version = serializers.CharField()
    channel = serializers.CharField()
    separate = serializers.BooleanField(source="is_separate")
    names_recipient = serializers.BooleanField()
    alternative_offered = serializers.BooleanField()
    withdrawn_at = TimeField(allow_null=True)


class SessionSerializer(SessionSummarySerializer):
    """A session in full. Give it the request in its context."""

    h5_url = serializers.SerializerMethodField()
    consent = serializers.SerializerMethodField()

    @field_schema(ConsentSummarySerializer(allow_null=True))
    def get_consent(self, session: VerificationSession) -> dict[str, Any] | None:
        """None when none was recorded."""
        found = consents.of_session(session)
        return dict(ConsentSummarySerializer(found).data) if found is not None else None

    def get_h5_url(self, session: VerificationSession) -> str | None:
        """Where to send the person: for who started the session alone, once prepared and until the end."""
        request: Request = self.context["request"]
        return h5_url(session) if is_creator(request.user, session) else None


class SessionPageSerializer(Described):
    """A page of a list; ``next`` and ``previous`` are addresses."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = SessionSummarySerializer(many=True)


class AttemptSerializer(Described):
    """One try of the person (API reference 3.8)."""

    order = serializers.IntegerField()
    passed = serializers.BooleanField(allow_null=True)
    code = serializers.CharField()
    message = serializers.CharField()
    verified_at = TimeField(allow_null=True)
    score = serializers.FloatField(allow_null=True)
    threshold = serializers.FloatField(allow_null=True)
    liveness_score = serializers.FloatField(allow_null=True)
    spoofing = serializers.FloatField(source="spoofing_score", allow_null=True)
    risk_level = serializers.CharField()
    risk_tag = serializers.CharField()
    is_demote = serializers.BooleanField(source="is_demoted", allow_null=True)
    is_charged = serializers.BooleanField(allow_null=True)
    charge_type = serializers.CharField()
    log_id = serializers.CharField(source="verify_log_id")


class OcrSerializer(Described):
    """What was read from the identity card; dates as Baidu writes them (``yyyyMMdd``, 「长期」)."""

    name = serializers.CharField(required=False)
    gender = serializers.CharField(required=False)
    nation = serializers.CharField(required=False)
    birthday = serializers.CharField(required=False)
    address = serializers.CharField(required=False)
    number = serializers.CharField(required=False)
    issue_authority = serializers.CharField(required=False)
    issue_time = serializers.CharField(required=False)
    expire_time = serializers.CharField(required=False)


class ConfirmedSerializer(Described):
    """The identity that the verification was made with."""

    name = serializers.CharField(required=False)
    number = serializers.CharField(required=False)


class StatCountSerializer(Described):
    """How often an internal service of Baidu's answered this code; "0" is success."""

    error_code = serializers.CharField()
    count = serializers.IntegerField()


STAT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "nullable": True,
    "additionalProperties": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"error_code": {"type": "string"}, "count": {"type": "integer"}},
        },
    },
}


class StatSerializer(Described):
    """Calls of Baidu's internal services by stage (API reference 3.6); null until it was learnt."""

    id = serializers.UUIDField(source="public_id")
    stat = serializers.SerializerMethodField()

    @field_schema(STAT_SCHEMA)
    def get_stat(self, session: VerificationSession) -> dict[str, Any] | None:
        """Stage → codes and counts."""
        return session.stat


class ResultSerializer(SessionSerializer):
    """A session with all that was learnt. Identities are masked, but in the answer of ``reveal/``."""

    ocr = serializers.SerializerMethodField()
    confirmed = serializers.SerializerMethodField()
    attempts = serializers.SerializerMethodField()
    stat = serializers.SerializerMethodField()

    @field_schema(OcrSerializer(allow_null=True))
    def get_ocr(self, session: VerificationSession) -> dict[str, str] | None:
        """None when no card was read."""
        return session.ocr if self._in_clear else mask_card(session.ocr)

    @field_schema(ConfirmedSerializer(allow_null=True))
    def get_confirmed(self, session: VerificationSession) -> dict[str, str] | None:
        """None before a pass."""
        return session.confirmed if self._in_clear else mask_card(session.confirmed)

    @field_schema(AttemptSerializer(many=True))
    def get_attempts(self, session: VerificationSession) -> list[dict[str, Any]]:
        """In order."""
        rows = VerificationAttempt.objects.filter(session=session).order_by("order")
        return [dict(item) for item in AttemptSerializer(rows, many=True).data]

    @field_schema(STAT_SCHEMA)
    def get_stat(self, session: VerificationSession) -> dict[str, Any] | None:
        """Stage → codes and counts."""
        return session.stat

    def get_identity(self, session: VerificationSession) -> dict[str, Any] | None:
        """As everywhere, but in clear in the answer of ``reveal/``."""
        if not self._in_clear or not (session.known_name or session.known_number):
            return super().get_identity(session)
        return {
            "name": session.known_name or "",
            "number": session.known_number or "",
            "certificate_type": session.certificate_type,
        }

    @property
    def _in_clear(self) -> bool:
        return bool(self.context.get("unmasked"))


class RevealSerializer(StrictSerializer):
    """Why an identity is to be seen in clear."""

    reason = serializers.CharField(
        max_length=30, help_text=_('A code of FACEPRINT["REVEAL_REASONS"], such as complaint or audit.')
    )
    reason_text = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=MAX_REASON_LENGTH,
        help_text=_("Short explanation, e.g. a ticket number; kept encrypted. Required with other."),
    )


class ErasureSerializer(Described):
    """What was erased, and whether storage has confirmed that the files are gone."""

    erasure = serializers.UUIDField()
    erased_at = serializers.DateTimeField()
    erased_by = serializers.CharField()
    reason = serializers.CharField()
    sessions = serializers.ListField(child=serializers.UUIDField())
    files = serializers.IntegerField()
    bytes = serializers.IntegerField()
    answers = serializers.IntegerField()
    storage_verified_at = serializers.DateTimeField(allow_null=True)


class MediaSerializer(Described):
    """A picture or video, archived or not."""

    id = serializers.UUIDField(source="public_id")
    kind = serializers.ChoiceField(choices=MediaAsset.Kind.choices)
    position = serializers.IntegerField()
    attempt = serializers.IntegerField(
        source="attempt_order", help_text=_("0 when it belongs to no single attempt.")
    )
    state = serializers.ChoiceField(choices=MediaAsset.State.choices)
    reason = serializers.CharField(
        help_text=_("Why there is none, where Baidu never made it or it is not kept by rule (`not_kept`).")
    )
    reason_text = serializers.SerializerMethodField(help_text=_("The same in words."))
    content_type = serializers.CharField()
    size = serializers.IntegerField(allow_null=True, help_text=_("Bytes."))
    sha256 = serializers.CharField(help_text=_("Of the file as given out."))
    width = serializers.IntegerField(allow_null=True)
    height = serializers.IntegerField(allow_null=True)
    duration = serializers.FloatField(allow_null=True, help_text=_("Seconds."))
    archived_at = TimeField(allow_null=True)
    deadline = TimeField(allow_null=True)
    url = serializers.SerializerMethodField()

    @field_schema({"type": "string"})
    def get_reason_text(self, asset: MediaAsset) -> str:
        """In the reader's language; "" where there is nothing to explain."""
        return describe_absence(asset)

    @field_schema({"type": "string", "format": "uri", "nullable": True})
    def get_url(self, asset: MediaAsset) -> str | None:
        """Where the file is, for a caller who may see it; None while there is no file."""
        request: Request = self.context["request"]
        if asset.state != MediaAsset.State.STORED or not may_view_media(request.user, asset.session):
            return None
        return reverse(f"{self.context['namespace']}:media-content", args=[asset.public_id], request=request)


class RequirementsSerializer(Described):
    """What must be submitted before the person can be sent to the page."""

    identity = serializers.BooleanField(source="needs_identity")
    match_image = serializers.BooleanField(source="needs_match_image")


class PlanSerializer(Described):
    """A plan with which a session can be started."""

    plan_id = serializers.CharField()
    name = serializers.CharField()
    match_source = serializers.ChoiceField(choices=Plan.MatchSource.choices)
    identity_entry = serializers.ChoiceField(choices=Plan.IdentityEntry.choices)
    accepts_non_mainland = serializers.BooleanField()
    requires = RequirementsSerializer(source="*")
