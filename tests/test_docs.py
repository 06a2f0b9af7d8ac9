"""The pages agree with the code, and both languages with each other, wherever that can be compared."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from django_faceprint import signals
from django_faceprint.api.urls import urlpatterns
from django_faceprint.conf import APPLICATION_KEYS, KEYS
from django_faceprint.models import AlertRule, MediaAsset, VerificationSession
from tests.test_imports import FLOORS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LANGUAGES = ("en", "zh-hans")
READMES = {"en": ROOT / "README.md", "zh-hans": ROOT / "README.zh-hans.md"}
CHECKS = {"en": DOCS / "checks.md", "zh-hans": DOCS / "zh-hans" / "checks.md"}
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

BLOCK = re.compile(r"<!-- begin: (\S+) -->\n```(\w+)\n(.*?)```\n<!-- end -->", re.DOTALL)
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CHECK_ID = re.compile(r"faceprint\.[EW][0-9]{3}")
PYTHON_FILES = ["settings.py", "urls.py", "celery.py", "__init__.py"]


def page(name: str, language: str) -> str:
    return (DOCS / language / name).read_text(encoding="utf-8")


def blocks(path: Path) -> dict[str, tuple[str, str]]:
    """Name → (language of the code, code), in the order of the page."""
    return {
        name: (language, code) for name, language, code in BLOCK.findall(path.read_text(encoding="utf-8"))
    }


def commands() -> set[str]:
    found = ROOT.glob("*/management/commands/*.py")
    return {path.stem for path in found if path.stem != "__init__"}


# --- links and pages ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in LINK.findall(text)]
    broken = [
        target
        for target in targets
        if target and "://" not in target and not (path.parent / target).resolve().exists()
    ]
    assert broken == []


def test_every_page_has_its_twin() -> None:
    names = {language: {path.name for path in (DOCS / language).glob("*.md")} for language in LANGUAGES}
    # The checks' English page stands where the code points to.
    assert names["zh-hans"] - {"checks.md"} == names["en"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_readme_and_the_index_name_every_page(language: str) -> None:
    readme = READMES[language].read_text(encoding="utf-8")
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for path in (DOCS / language).glob("*.md"):
        assert f"(docs/{language}/{path.name})" in readme
        assert f"({language}/{path.name})" in index


def test_code_is_the_same_in_both_languages() -> None:
    """Prose is translated; commands and JSON are not. Only comments may differ."""

    def code_of(text: str) -> list[str]:
        return [re.sub(r" *#.*", "", block) for block in FENCED.findall(text) if "mermaid" not in block]

    for path in (DOCS / "en").glob("*.md"):
        english, chinese = (code_of(page(path.name, language)) for language in LANGUAGES)
        assert english == chinese, path.name


# --- the README's lines ---------------------------------------------------------------------------


def test_both_readmes_carry_the_same_blocks() -> None:
    english, chinese = (blocks(path) for path in READMES.values())
    assert list(english) == [*PYTHON_FILES, "setup.sh", "processes.sh", "plans.sh"]
    assert english == chinese


@pytest.mark.parametrize("name", PYTHON_FILES)
def test_the_blocks_are_python(name: str) -> None:
    language, code = blocks(READMES["en"])[name]
    assert language == "python"
    compile(code, name, "exec")


@pytest.mark.parametrize(
    ("language", "sentence"), [("en", r"(\d+) lines of Python"), ("zh-hans", r"(\d+) 行 Python")]
)
def test_the_number_of_lines_is_true(language: str, sentence: str) -> None:
    lines = [
        line
        for name in PYTHON_FILES
        for line in blocks(READMES[language])[name][1].splitlines()
        if line.strip()
    ]
    stated = re.findall(sentence, READMES[language].read_text(encoding="utf-8"))
    assert stated == [str(len(lines))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_extra_is_named(language: str) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    readme, quickstart = READMES[language].read_text(encoding="utf-8"), page("quickstart.md", language)
    for extra in config["options.extras_require"]:
        assert f"[{extra}]" in readme
        assert f"`{extra}`" in quickstart


# --- what the code has, the pages have ------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_setting_is_documented(key: str, language: str) -> None:
    text = page("settings.md", language)
    assert f"\n| `{key}` |" in text
    assert f"**`{key}`**" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_other_setting_is_documented(language: str) -> None:
    text = page("settings.md", language)
    assert set(re.findall(r"^\*\*`(\w+)`\*\*", text, re.MULTILINE)) <= KEYS
    assert all(f'"{key}"' in text for key in APPLICATION_KEYS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_command_is_documented(language: str) -> None:
    text = page("commands.md", language)
    assert set(re.findall(r"^\| `(faceprint_\w+)` \|", text, re.MULTILINE)) == commands()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_page_calls_a_command_that_does_not_exist(path: Path) -> None:
    called = re.findall(r"manage\.py (faceprint_\w+)", path.read_text(encoding="utf-8"))
    assert set(called) <= commands()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_option_of_a_command_is_documented(language: str) -> None:
    documented = page("commands.md", language) + page("sandbox.md", language)
    for path in ROOT.glob("*/management/commands/*.py"):
        for arguments in re.findall(
            r"add_argument\((.*?)\n?\s*\)\n", path.read_text(encoding="utf-8"), re.DOTALL
        ):
            if "SUPPRESS" in arguments:
                continue
            for option in re.findall(r'"(--[a-z-]+)"', arguments):
                assert option in documented, f"{path.stem} {option}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_documented_checks_are_those_of_the_code(language: str) -> None:
    sources = (ROOT / "django_faceprint").rglob("*.py")
    known = {check for path in sources for check in CHECK_ID.findall(path.read_text(encoding="utf-8"))}
    rows = re.findall(r"^\| `(\S+)` \|", CHECKS[language].read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(known)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_address_of_the_api_is_documented(language: str) -> None:
    documented = set(re.findall(r"(?:GET|POST) ([\w{}/-]+/)`", page("api.md", language)))
    assert documented == {str(route.pattern).replace("<str:id>", "{id}") for route in urlpatterns}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_permission_is_documented(language: str) -> None:
    text = page("privacy.md", language)
    for name, _ in VerificationSession._meta.permissions:
        assert re.search(rf"[`. ]{name}[` ]", text), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_rule_and_signal_is_documented(language: str) -> None:
    engine, alerts = page("engine.md", language), page("alerts.md", language)
    states = [
        *VerificationSession.Verdict.values,
        *VerificationSession.Status.values,
        *VerificationSession.ArchiveState.values,
        *MediaAsset.State.values,
    ]
    assert [state for state in states if f"`{state}`" not in engine] == []
    names = [name for name, value in vars(signals).items() if isinstance(value, signals.Signal)]
    assert [name for name in names if not re.search(rf"\b{name}\b", engine)] == []
    assert [rule for rule in AlertRule.Condition.values if f"| `{rule}` |" not in alerts] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_variable_of_the_example_is_documented(language: str) -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    variables = re.findall(
        r"^#?(FACEPRINT_\w+|\w+_URL|DEBUG|SECRET_KEY|ALLOWED_HOSTS)=", example, re.MULTILINE
    )
    text = page("live.md", language)
    assert variables
    assert [name for name in variables if f"`{name}`" not in text] == []


# --- glossary and architecture --------------------------------------------------------------------


def terms(language: str) -> list[tuple[str, str, str]]:
    """English term, Chinese term, and where it stands in the code, of each row."""
    return re.findall(r"^\| (.+?) \| (.+?) \| .+ \| (`.+`) \|$", page("glossary.md", language), re.MULTILINE)


def test_both_glossaries_have_the_same_terms() -> None:
    assert len(terms("en")) > 50
    assert terms("en") == terms("zh-hans")


def test_no_term_stands_twice_in_the_glossary() -> None:
    for column in (0, 1):
        names = [row[column] for row in terms("en")]
        assert sorted(names) == sorted(set(names))


def test_every_term_of_the_glossary_is_in_the_code() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "django_faceprint").rglob("*.py")
    )
    known = set(re.findall(r"\w+", sources))
    assert [code for *_, code in terms("en") if not set(re.findall(r"\w+", code)) <= known] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_picture_of_the_rooms_is_true(language: str) -> None:
    (picture,) = (
        block for block in FENCED.findall(page("architecture.md", language)) if "bundle_check" in block
    )
    lines = [set(line.split()) for line in reversed(picture.splitlines()[1:-1])]
    assert lines == [set(rooms) for rooms in FLOORS]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_room_has_its_line(language: str) -> None:
    rows = re.findall(r"^\| ((?:`\w+`[、, ]*)+) \|", page("architecture.md", language), re.MULTILINE)
    named = {room for row in rows for room in re.findall(r"\w+", row)}
    assert named == {room for rooms in FLOORS for room in rooms}


@pytest.mark.parametrize(
    "name", ["CONTRIBUTING.md", *(f"docs/{language}/architecture.md" for language in LANGUAGES)]
)
def test_every_source_that_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|po)|(?:[\w.-]+/)+)`", text)
    places = (ROOT, ROOT / "django_faceprint")
    assert paths
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


# --- what no page may hold ------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_page_names_machines_or_holds_open_ends(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"@@|TODO|FIXME|/(?:tmp|root|home)/", text)
    assert not re.search(r"[1-9][0-9]{5}(?:19|20)[0-9]{9}[0-9X]", text.replace("11010519491231002X", ""))
