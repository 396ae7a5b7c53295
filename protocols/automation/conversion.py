"""From SIA to Contact ID and back, by the pairings of `sia_dcs/codes.csv`: for another side that cannot take the original.

The pairings are conventions, many to one, so a conversion loses detail and is never made when the original can be sent. A
code without a pairing is refused, not guessed: a wrong code sends the wrong people.
"""

from protocols import contact_id, sia_dcs
from protocols.contact_id import ContactId, Qualifier
from protocols.errors import NoEquivalent
from protocols.sia_dcs import SiaEvent

# Contact ID codes that several SIA codes stand for, and the one to write; and those that the table pairs with none though
# receivers agree on one. Two sources at least for each, or the plain word of the group (a fire trouble is FT).
_CHOSEN = {
    ("100", 3): "MR", ("101", 3): "QR", ("110", 1): "FA", ("110", 3): "FR", ("113", 3): "SR", ("120", 3): "PR",
    ("121", 1): "HA", ("121", 3): "HR", ("122", 1): "HA", ("122", 3): "HR", ("123", 1): "PA", ("123", 3): "PR",
    ("130", 1): "BA", ("130", 3): "BR", ("131", 1): "BA", ("131", 3): "BR", ("132", 1): "BA", ("132", 3): "BR",
    ("133", 1): "BA", ("133", 3): "BR", ("134", 1): "BA", ("134", 3): "BR", ("137", 3): "TR", ("140", 1): "UA",
    ("140", 3): "UR", ("146", 1): "BA", ("146", 3): "BR", ("151", 3): "GR", ("154", 3): "WR", ("158", 3): "KR",
    ("159", 3): "ZR", ("200", 1): "FS", ("302", 1): "YT", ("305", 1): "RR", ("350", 1): "YC", ("350", 3): "YK",
    ("354", 1): "YS",
    ("373", 1): "FT", ("373", 3): "FJ", ("380", 1): "UT", ("380", 3): "UJ", ("401", 3): "CL", ("403", 1): "OA",
    ("403", 3): "CA", ("406", 1): "BC", ("409", 1): "OS", ("423", 1): "DF", ("570", 1): "UB", ("570", 3): "UU",
    ("571", 1): "FB", ("571", 3): "FU", ("572", 1): "HB", ("572", 3): "HU", ("602", 1): "RP",
}  # fmt: skip

_DURESS_FAMILY = "12"


def _pair() -> dict[tuple[str, int], str]:
    """Return the SIA code for each Contact ID code and qualifier: the only one paired, or the chosen one."""
    paired: dict[tuple[str, int], list[str]] = {}
    for code, row in sia_dcs.CODES.items():
        if row.contact_id is not None:
            paired.setdefault((row.contact_id, 3 if row.restoral else 1), []).append(code)
    return {pair: codes[0] for pair, codes in paired.items() if len(codes) == 1} | _CHOSEN


_TO_SIA = _pair()


def to_contact_id(event: SiaEvent) -> ContactId:
    """Return the Contact ID event that stands for a SIA event; partition and number as they were, 00 and 000 where absent.

    Raises:
        NoEquivalent: the table pairs its code with none.
    """
    known = sia_dcs.CODES.get(event.code)
    if known is None or known.contact_id is None:
        raise NoEquivalent(f"the tables pair the SIA code {event.code} with no Contact ID code")
    partition, user, zone = event.modifier("ri"), event.modifier("id"), event.address
    if known.address == "user":
        user, zone = user or zone, None
    elif known.address == "area":
        partition, zone = partition or zone, None
    wanted = contact_id.CODES.get(known.contact_id)
    number = (user or zone) if wanted is not None and wanted.number == "user" else (zone or user)
    qualifier = Qualifier.RESTORE if known.restoral else Qualifier.NEW
    return ContactId(qualifier, known.contact_id, (partition or "").rjust(2, "0"), (number or "").rjust(3, "0"))


def to_sia(event: ContactId) -> SiaEvent:
    """Return the SIA event that stands for a Contact ID event: partition as ``ri``, a user as ``id``, a zone as the address.

    Raises:
        NoEquivalent: the table pairs its code, with this qualifier, with none or with several.
    """
    restore = 3 if event.qualifier is Qualifier.RESTORE else 1
    code = _TO_SIA.get((event.event_code, restore))
    if code is None and event.event_code.startswith(_DURESS_FAMILY):
        code = _TO_SIA["121", restore]  # 124 to 128: no pairing, and a duress must not be held back for want of a word
    if code is None:
        raise NoEquivalent(f"the tables pair {event.qualifier.value}{event.event_code} with no SIA code, or with several")
    modifiers: list[tuple[str, str]] = []
    if event.partition.strip("0"):
        modifiers.append(("ri", event.partition))
    known, number = contact_id.CODES.get(event.event_code), event.zone_or_user
    absent = not number.strip("0")
    is_user = known is not None and known.number == "user" and sia_dcs.CODES[code].address != "user"
    if is_user and not absent:
        modifiers.append(("id", number))
    return SiaEvent(code, None if is_user or absent else number, tuple(modifiers))
