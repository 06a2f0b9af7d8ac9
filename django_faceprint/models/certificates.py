"""Baidu's numbers for the kinds of ID documents."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

CERTIFICATE_TYPES: dict[int, Promise] = {
    0: _("Resident identity card"),
    1: _("Mainland travel permit for Hong Kong, Macao and Taiwan residents"),
    2: _("Foreign permanent resident card"),
    3: _("Passport of a Chinese citizen living abroad"),
    4: _("Residence permit for Hong Kong, Macao and Taiwan residents"),
}


def certificate_name(value: int | None) -> str:
    """The name of a kind of ID document; "" for None, and the number itself when it has no name."""
    return "" if value is None else str(CERTIFICATE_TYPES.get(value, value))
