"""The template languages of the OTP API."""

from difflib import get_close_matches
from enum import StrEnum
from typing import Self

from .checks import InvalidValueError, text
from .errors import InvalidReason

__all__ = ["Language"]


class Language(StrEnum):
    """A template language, as listed on the vendor's "WhatsApp API otp" page.

    A member is its code (``Language.PT_BR == "pt_BR"``).

    Attributes:
        label: The vendor's English name for it.
    """

    label: str

    def __new__(cls, code: str, label: str) -> Self:  # noqa: D102 - how an enum is constructed is its own affair
        member = str.__new__(cls, code)
        member._value_ = code
        member.label = label
        return member

    AF = "af", "Afrikaans"
    SQ = "sq", "Albanian"
    AR = "ar", "Arabic"
    AZ = "az", "Azerbaijani"
    BN = "bn", "Bengali"
    BG = "bg", "Bulgarian"
    CA = "ca", "Catalan"
    ZH_CN = "zh_CN", "Chinese (CHN)"
    ZH_HK = "zh_HK", "Chinese (HKG)"
    ZH_TW = "zh_TW", "Chinese (TAI)"
    HR = "hr", "Croatian"
    CS = "cs", "Czech"
    DA = "da", "Danish"
    NL = "nl", "Dutch"
    EN = "en", "English"
    EN_GB = "en_GB", "English (UK)"
    EN_US = "en_US", "English (US)"
    ET = "et", "Estonian"
    FIL = "fil", "Filipino"
    FI = "fi", "Finnish"
    FR = "fr", "French"
    DE = "de", "German"
    EL = "el", "Greek"
    GU = "gu", "Gujarati"
    HE = "he", "Hebrew"
    HI = "hi", "Hindi"
    HU = "hu", "Hungarian"
    ID = "id", "Indonesian"
    GA = "ga", "Irish"
    IT = "it", "Italian"
    JA = "ja", "Japanese"
    KN = "kn", "Kannada"
    KK = "kk", "Kazakh"
    KO = "ko", "Korean"
    LO = "lo", "Lao"
    LV = "lv", "Latvian"
    LT = "lt", "Lithuanian"
    MK = "mk", "Macedonian"
    MS = "ms", "Malay"
    MR = "mr", "Marathi"
    NB = "nb", "Norwegian"
    FA = "fa", "Persian"
    PL = "pl", "Polish"
    PT_BR = "pt_BR", "Portuguese (BR)"
    PT_PT = "pt_PT", "Portuguese (POR)"
    PA = "pa", "Punjabi"
    RO = "ro", "Romanian"
    RU = "ru", "Russian"
    SR = "sr", "Serbian"
    SK = "sk", "Slovak"
    SL = "sl", "Slovenian"
    ES = "es", "Spanish"
    ES_AR = "es_AR", "Spanish (ARG)"
    ES_ES = "es_ES", "Spanish (SPA)"
    ES_MX = "es_MX", "Spanish (MEX)"
    SW = "sw", "Swahili"
    SV = "sv", "Swedish"
    TA = "ta", "Tamil"
    TE = "te", "Telugu"
    TH = "th", "Thai"
    TR = "tr", "Turkish"
    UK = "uk", "Ukrainian"
    UR = "ur", "Urdu"
    UZ = "uz", "Uzbek"
    VI = "vi", "Vietnamese"

    @classmethod
    def parse(cls, value: object) -> "Language":
        """Find a language by its code, whatever its letter case and whether written with ``-`` or ``_``.

        Raises:
            ValueError: The value is no str, or an unknown code; then the text names the most similar ones.
        """
        if isinstance(value, cls):
            return value
        code = text(value)
        try:
            return _BY_FOLDED_CODE[_fold(code)]
        except KeyError:
            problem = f"is the unknown language code {_quoted(code)}; {_similar(code)}"
            raise InvalidValueError(problem, reason=InvalidReason.UNKNOWN_VALUE) from None


def _fold(code: str) -> str:
    return code.strip().replace("-", "_").lower()


_BY_FOLDED_CODE = {_fold(language): language for language in Language}
_BY_FOLDED_LABEL = {language.label.lower(): language for language in Language}


def _quoted(text: str) -> str:
    # A code passed as a language by mistake must not be repeated, and no language has a digit.
    return repr("".join("#" if char.isdigit() else char for char in text[:32]))


def _similar(text: str) -> str:
    folded = _fold(text)[:32]
    family = [language for code, language in _BY_FOLDED_CODE.items() if code[:2] == folded[:2]]
    similar = [_BY_FOLDED_CODE[code] for code in get_close_matches(folded, _BY_FOLDED_CODE, n=3, cutoff=0.5)]
    named = [language for label, language in _BY_FOLDED_LABEL.items() if label.split(" (")[0] == folded]
    misspelt = [_BY_FOLDED_LABEL[label] for label in get_close_matches(folded, _BY_FOLDED_LABEL, n=2, cutoff=0.75)]
    nearest = list(dict.fromkeys([*named, *misspelt, *family, *similar]))[:3]
    if not nearest:
        return f"there are {len(Language)}, such as en, zh_CN and pt_BR"
    return "did you mean " + " or ".join(f"{language.value} ({language.label})" for language in nearest) + "?"
