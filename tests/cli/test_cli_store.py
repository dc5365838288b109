"""``nxotp store``, over a real PostgreSQL."""

import json

import psycopg
import pytest
from click.testing import Result
from commands import invoke


def migrate(url: str, *options: str) -> Result:
    return invoke("store", "migrate", *options, env={"NXOTP_STORE": url})


def test_the_tables_are_made_once(schema_url: str) -> None:
    first, second = migrate(schema_url), migrate(schema_url)
    assert (first.exit_code, first.stdout) == (0, "the tables were migrated from version 0 to 1\n")
    assert (second.exit_code, second.stdout) == (0, "the tables have version 1: nothing to migrate\n")


def test_a_check_changes_nothing_and_its_exit_code_is_the_answer(schema_url: str) -> None:
    for _ in range(2):
        before = migrate(schema_url, "--check")
        assert (before.exit_code, before.stdout) == (
            1,
            "the tables are missing, and need version 1: run  nxotp store migrate\n",
        )
    migrate(schema_url)
    after = migrate(schema_url, "--check")
    assert (after.exit_code, after.stdout) == (0, "the tables have version 1: nothing to migrate\n")


def test_as_json_it_says_the_same(schema_url: str) -> None:
    def said(*options: str) -> tuple[int, object]:
        result = migrate(schema_url, "--json", *options)
        return result.exit_code, json.loads(result.stdout)

    missing = {"store": "PostgresStore", "before": 0, "after": 1, "migration_needed": True}
    assert said("--check") == (1, missing)
    assert said() == (0, {**missing, "migration_needed": False})
    assert said("--check") == (0, {**missing, "before": 1, "migration_needed": False})


def test_tables_that_need_a_newer_version_are_refused(schema_url: str) -> None:
    migrate(schema_url)
    with psycopg.connect(schema_url, autocommit=True) as connection:
        connection.execute("UPDATE nxotp_schema SET version = 7, needs = 7")
    for options in ((), ("--check",)):
        result = migrate(schema_url, *options)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "version 7, which needs a newer nxotp_async" in result.stderr


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "memory://"])
@pytest.mark.parametrize("options", [(), ("--check",)], ids=" ".join)
def test_stores_without_tables_need_nothing(url: str, options: tuple[str, ...]) -> None:
    result = migrate(url, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("Store has no tables: nothing to migrate\n")
    shown = json.loads(migrate(url, *options, "--json").stdout)
    assert (shown["before"], shown["after"], shown["migration_needed"]) == (None, None, False)


@pytest.mark.parametrize(
    ("url", "code", "problem"),
    [
        ("", 3, "NXOTP_STORE is missing"),
        ("mysql://user:pa55word@host", 3, "unknown scheme"),
        ("postgresql://user:pa55word@127.0.0.1:1/database", 1, "PostgreSQL failed"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, code: int, problem: str) -> None:
    result = migrate(url)
    assert (result.exit_code, result.stdout) == (code, "")
    assert problem in result.stderr
    assert "pa55word" not in result.stderr
