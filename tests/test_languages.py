import pickle

import pytest

from nxotp_async import Language

# The vendor's table.
VENDOR_TABLE = """
    Afrikaans af · Albanian sq · Arabic ar · Azerbaijani az · Bengali bn · Bulgarian bg · Catalan ca
    Chinese (CHN) zh_CN · Chinese (HKG) zh_HK · Chinese (TAI) zh_TW · Croatian hr · Czech cs · Danish da · Dutch nl
    English en · English (UK) en_GB · English (US) en_US · Estonian et · Filipino fil · Finnish fi · French fr
    German de · Greek el · Gujarati gu · Hebrew he · Hindi hi · Hungarian hu · Indonesian id · Irish ga · Italian it
    Japanese ja · Kannada kn · Kazakh kk · Korean ko · Lao lo · Latvian lv · Lithuanian lt · Macedonian mk · Malay ms
    Marathi mr · Norwegian nb · Persian fa · Polish pl · Portuguese (BR) pt_BR · Portuguese (POR) pt_PT · Punjabi pa
    Romanian ro · Russian ru · Serbian sr · Slovak sk · Slovenian sl · Spanish es · Spanish (ARG) es_AR
    Spanish (SPA) es_ES · Spanish (MEX) es_MX · Swahili sw · Swedish sv · Tamil ta · Telugu te · Thai th · Turkish tr
    Ukrainian uk · Urdu ur · Uzbek uz · Vietnamese vi
"""
LABELS = {
    code: label
    for entry in VENDOR_TABLE.strip().replace("\n", "·").split("·")
    for label, code in [entry.strip().rsplit(" ", 1)]
}
NAMES = sorted({label.split(" (")[0] for label in LABELS.values()})


def _refusal(text: str) -> str:
    with pytest.raises(ValueError) as caught:
        Language.parse(text)
    return str(caught.value)


def test_the_vendors_65_languages_are_all_there_and_no_others() -> None:
    assert len(LABELS) == 65
    assert {language.value: language.label for language in Language} == LABELS


@pytest.mark.parametrize("code", LABELS)
def test_a_code_is_recognised_however_it_is_written(code: str) -> None:
    hyphenated = code.replace("_", "-")
    for text in (code, code.upper(), code.lower(), hyphenated, hyphenated.swapcase(), f" {code}\n"):
        assert Language.parse(text).value == code


@pytest.mark.parametrize("text", ["pt-BR", "PT_br", "  pt_BR ", "pt-br\r\n", "Pt-Br"])
def test_brazilian_portuguese_by_any_spelling(text: str) -> None:
    assert Language.parse(text) is Language.PT_BR


def test_a_language_is_its_code() -> None:
    assert {"zh_CN": "found"}[Language.ZH_CN] == "found"
    assert f"{Language.ZH_CN}" == "zh_CN"
    assert Language.parse(Language.ZH_CN) is Language.ZH_CN


def test_a_language_survives_pickling() -> None:
    assert all(pickle.loads(pickle.dumps(language)) is language for language in Language)


@pytest.mark.parametrize(
    ("text", "neighbours"),
    [
        ("german", ["de (German)"]),
        ("zh", ["zh_CN", "zh_HK", "zh_TW"]),
        ("zh-Hans", ["zh_CN", "zh_HK", "zh_TW"]),
        ("pt", ["pt_BR", "pt_PT"]),
        ("en_AU", ["en (English)", "en_GB", "en_US"]),
        ("es_419", ["es (Spanish)"]),
        ("de_DE", ["de (German)"]),
        ("portugese", ["pt_BR"]),
    ],
)
def test_an_unknown_code_is_refused_with_its_neighbours(text: str, neighbours: list[str]) -> None:
    refusal = _refusal(text)
    assert "did you mean" in refusal
    assert [name for name in neighbours if name not in refusal] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_language_is_answered_with_its_code(name: str) -> None:
    codes = [f"{code} ({label})" for code, label in LABELS.items() if label.split(" (")[0] == name]
    assert any(code in _refusal(name.lower()) for code in codes)


@pytest.mark.parametrize("text", ["", "   ", "xx", "klingon", "qqqq_QQ"])
def test_without_neighbours_the_refusal_gives_examples(text: str) -> None:
    assert "there are 65, such as en, zh_CN and pt_BR" in _refusal(text)


@pytest.mark.parametrize(
    "text", ["004213", "Your code is 004213", "004213 is your code", "\uff10\uff10\uff14\uff12\uff11\uff13"]
)
def test_a_code_passed_as_a_language_by_mistake_is_not_echoed(text: str) -> None:
    assert not any(char.isdigit() for char in _refusal(text).split(";")[0])


def test_a_long_text_is_cut() -> None:
    assert len(_refusal("x" * 100_000)) < 200


def test_a_refusal_cannot_drive_a_terminal() -> None:
    assert _refusal("\x1b[2Jen\x07\u202e").isprintable()
