"""Views of the OpenAPI document and of Swagger UI; only imported if drf-spectacular is installed."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.reverse import reverse
from rest_framework.views import APIView


@extend_schema(exclude=True)
class SchemaView(SpectacularAPIView):
    """OpenAPI 3 of the URLs of django-faceprint, without the host's."""

    permission_classes = (IsAuthenticated,)
    authentication_classes = APIView.authentication_classes
    versioning_class = None
    serve_public = True
    custom_settings = {
        "TITLE": "django-faceprint",
        "PREPROCESSING_HOOKS": ["django_faceprint.api.schema.only_faceprint"],
    }


@extend_schema(exclude=True)
class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI from this site's own static files only, without inline scripts."""

    permission_classes = (IsAuthenticated,)
    authentication_classes = APIView.authentication_classes
    versioning_class = None
    title = "django-faceprint"

    def _get_schema_url(self, request: Request) -> str:
        match = request.resolver_match
        namespace = match.namespace if match is not None else "faceprint-api"
        return reverse(f"{namespace}:schema")

    @staticmethod
    def _swagger_ui_resource(filename: str) -> str:
        return _sidecar(filename)

    @staticmethod
    def _swagger_ui_favicon() -> str:
        return _sidecar("favicon-32x32.png")


def _sidecar(filename: str) -> str:
    from django.templatetags.static import static

    return static(f"drf_spectacular_sidecar/swagger-ui-dist/{filename}")
