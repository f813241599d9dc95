"""``emodarts serve``: a model as a web server."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from emodarts.cli.options import ModelArgument
from emodarts.cli.printing import print_warning
from emodarts.errors import EmodartsError

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")


def serve(
    model: ModelArgument,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen on; with 0.0.0.0 other machines can ask."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port; 0 picks a free one.")
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="EMODARTS_TOKEN",
            help="Answer only requests with this bearer token: 16 or more letters, digits, "
            "hyphens, dots, underscores and tildes.",
        ),
    ] = None,
    max_upload: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="Largest upload.")
    ] = 64.0,
    max_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="Longest upload or stream.")
    ] = 600.0,
    max_requests: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most uploads at a time.")
    ] = 32,
    max_streams: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most streams at a time.")
    ] = 8,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1.0, help="Longest time for an upload and its answer."),
    ] = 60.0,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Recordings that are classified side by side.")
    ] = 2,
) -> None:
    """Serve a model on the web: a page to record and drop files, and an API (extra `serve`).

    Only this machine can ask, unless --host says otherwise. Uploads are deleted once they are
    answered. Ctrl-C answers what has been asked, then ends.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise EmodartsError(
            "the token is too short or has other characters; allowed: 16 or more letters, digits, "
            "hyphens, dots, underscores and tildes"
        )
    try:
        from emodarts.serving.guard import Limits
        from emodarts.serving.server import is_loopback
        from emodarts.serving.server import serve as run_server
    except ModuleNotFoundError as error:
        raise EmodartsError(
            f"emodarts serve needs {error.name}; pip install 'emodarts[serve]'"
        ) from error
    from emodarts.serving.model import Model

    limits = Limits(
        upload=round(max_upload * 10**6),
        seconds=max_seconds,
        requests=max_requests,
        streams=max_streams,
        timeout=timeout,
        jobs=jobs,
    )
    loaded = Model.load(model)
    if token is None and not is_loopback(host):
        print_warning(f"everyone who reaches {host} can ask; --token keeps strangers out")

    def ready(url: str) -> None:
        typer.echo(f"{url}  (Ctrl-C ends)")

    run_server(loaded, host, port, limits, token, ready)
