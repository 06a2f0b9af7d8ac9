"""The OpenAPI description: valid, without warnings, true of real answers, and nobody's need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from tests.scenario import Scenario

from .conftest import IDENTITY, ROOT, finish

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_schema_is_valid_and_complete(tmp_path: Path) -> None:
    target = tmp_path / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(target))
    assert "faceprint_sessions_start" in target.read_text()


def as_json_schema(value: Any) -> Any:
    """OpenAPI 3.0 says ``nullable`` where JSON Schema says ``null``."""
    if isinstance(value, list):
        return [as_json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    converted = {key: as_json_schema(item) for key, item in value.items() if key != "nullable"}
    return {"anyOf": [converted, {"type": "null"}]} if value.get("nullable") is True else converted


@pytest.fixture
def assert_described() -> Callable[[Any, str], None]:
    """That an answer is what its component in the description says, with no word too many."""
    document = as_json_schema(SchemaGenerator().get_schema(request=None, public=True))

    def check(content: Any, component: str) -> None:
        described = document["components"]["schemas"][component]
        jsonschema.validate(content, {**document, "$ref": f"#/components/schemas/{component}"})
        assert set(content) <= set(described["properties"])
        assert set(content) >= set(described["required"])

    return check


def test_real_answers_are_as_described(
    api: APIClient,
    start: Callable[..., dict[str, Any]],
    scenario: Scenario,
    assert_described: Callable[[Any, str], None],
) -> None:
    session = start()
    address = f"{ROOT}sessions/{session['id']}/"
    assert_described(session, "FaceprintSession")
    finish(scenario, session, "fail", code="223120")
    assert_described(api.get(address).json(), "FaceprintSession")
    assert_described(api.get(f"{address}result/").json(), "FaceprintResult")
    assert_described(api.get(f"{address}stat/").json(), "FaceprintStat")
    assert_described(api.get(f"{ROOT}sessions/").json(), "FaceprintSessionPage")
    passed = start("25002", identity=None)
    finish(scenario, passed)
    result = api.get(f"{ROOT}sessions/{passed['id']}/result/").json()
    assert result["verdict"] == "passed"
    assert_described(result, "FaceprintResult")
    for item in api.get(f"{ROOT}sessions/{passed['id']}/media/").json():
        assert_described(item, "FaceprintMedia")
    for item in api.get(f"{ROOT}plans/").json():
        assert_described(item, "FaceprintPlan")
    assert_described(api.post(f"{ROOT}sessions/", {"plan": "9"}).json(), "FaceprintProblem")
    assert_described(api.post(f"{ROOT}sessions/", {}).json(), "FaceprintProblem")
    scenario.fault("verify_token_generate", "gateway", code=18)
    failed = api.post(f"{ROOT}sessions/", {"plan": "25001", "identity": IDENTITY}).json()
    assert_described(failed, "FaceprintProblem")


def test_the_schema_and_its_page_need_no_other_site(api: APIClient) -> None:
    schema = api.get(f"{ROOT}schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    paths = json.loads(schema.content)["paths"]
    assert f"{ROOT}sessions/{{id}}/match-image/" in paths
    assert all(path.startswith(ROOT) for path in paths)
    page = api.get(f"{ROOT}docs/", headers={"Accept": "text/html"}).content.decode()
    assert "/static/drf_spectacular_sidecar/swagger-ui-dist/" in page
    assert "https://" not in page
    script = api.get(f"{ROOT}docs/?script=").content.decode()
    assert f"{ROOT}schema/" in script


WITHOUT_SPECTACULAR = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("drf_spectacular"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
def find_spec(name, *more):
    return None if name.startswith("drf_spectacular") else found(name, *more)
importlib.util.find_spec = find_spec
from django.conf import settings
import tests.settings as base
settings.configure(**{
    **{name: getattr(base, name) for name in dir(base) if name.isupper()},
    "INSTALLED_APPS": [app for app in base.INSTALLED_APPS if not app.startswith("drf_spectacular")],
    "REST_FRAMEWORK": {},
})
import django
django.setup()
from django.urls import reverse
print(reverse("faceprint-api:sessions"))
from django_faceprint.api.urls import urlpatterns
print(",".join(sorted(pattern.name for pattern in urlpatterns)))
"""


def test_the_api_works_without_drf_spectacular() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SPECTACULAR],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    address, names = done.stdout.split()
    assert address == f"{ROOT}sessions/"
    assert "schema" not in names
    assert "plans" in names
