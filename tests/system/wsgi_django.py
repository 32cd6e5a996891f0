"""A Django project in one file; ``application`` for gunicorn, ``app`` for m2gate."""

import hashlib
from pathlib import Path

import django
from django import forms
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path, re_path
from django.views.decorators.http import condition, require_http_methods
from django.views.static import serve

from m2gate import App

STATIC = Path(__file__).with_name("wsgi_static")

settings.configure(
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["shop.example"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.gzip.GZipMiddleware",
    ],
    FILE_UPLOAD_MAX_MEMORY_SIZE=1000,
    LOGGING_CONFIG=None,
)
django.setup(set_prefix=False)


class Order(forms.Form):
    """Two fields with rules."""

    name = forms.CharField(max_length=10)
    count = forms.IntegerField(min_value=1)
    note = forms.FileField(required=False)


@require_http_methods(["GET", "HEAD", "POST"])
def order(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponse(Order().as_p())
    form = Order(request.POST, request.FILES)
    if not form.is_valid():
        return JsonResponse(form.errors.get_json_data(), status=422)
    note = form.cleaned_data["note"]
    data = {"name": form.cleaned_data["name"], "count": form.cleaned_data["count"]}
    if note:
        data |= {"file": note.name, "size": note.size, "sha": hashlib.sha256(note.read()).hexdigest()}
    return JsonResponse(data)


def visits(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"visit {request.session['visits']}")


def leave(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return redirect("/visits/")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse((f"line {i}\n" for i in range(5)), content_type="text/plain")


def download(request: HttpRequest) -> FileResponse:
    return FileResponse((STATIC / "site.css").open("rb"), as_attachment=True, filename="größe.css")


def body(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"size": len(request.body), "length": request.META.get("CONTENT_LENGTH")})


def read(request: HttpRequest) -> HttpResponse:
    size, sha = 0, hashlib.sha256()
    while piece := request.read(7_000):
        size += len(piece)
        sha.update(piece)
    return JsonResponse({"size": size, "sha": sha.hexdigest()})


@condition(etag_func=lambda request: '"fixed"')
def tagged(request: HttpRequest) -> HttpResponse:
    return HttpResponse("tagged")


def info(request: HttpRequest, rest: str) -> HttpResponse:
    data = {"rest": rest, "path": request.path, "full": request.get_full_path(), "url": request.build_absolute_uri()}
    return JsonResponse(data | {"query": dict(request.GET.lists()), "secure": request.is_secure()})


def boom(request: HttpRequest) -> HttpResponseBase:
    raise RuntimeError("on purpose")


def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse("größer " * 100_000, content_type="text/plain; charset=utf-8")


urlpatterns = [
    path("order/", order),
    path("visits/", visits),
    path("leave/", leave),
    path("stream/", stream),
    path("download/", download),
    path("body/", body),
    path("read/", read),
    path("tagged/", tagged),
    path("boom/", boom),
    path("large/", large),
    re_path(r"^info/(?P<rest>.*)$", info),
    re_path(r"^static/(?P<path>.*)$", serve, {"document_root": STATIC}),
]

application = get_wsgi_application()
app = App()
app.mount("/", wsgi=application)
