"""Whether the registry of a container image answers: asked before ``auto`` chooses an image that is not here."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from threading import Thread

PATIENCE_S = 3.0  # a registry that needs longer is as good as none
DOCKER = ("docker.io", "registry-1.docker.io")  # the host in names of its images, and the one that serves them


def url_of(name: str) -> str:
    """Return the address where a registry's API is, from the name of an image.

    >>> url_of("quay.io/calico/node:v3.32.1"), url_of("docker.io/nginx/nginx-ingress:5.5.3")
    ('https://quay.io/v2/', 'https://registry-1.docker.io/v2/')
    """
    host = name.partition("/")[0]
    return f"https://{DOCKER[1] if host == DOCKER[0] else host}/v2/"


@cache  # one `up` plans more than once
def answers(name: str, get: Callable[..., object] = urllib.request.urlopen) -> bool:
    """Return whether the registry of an image answers within PATIENCE_S seconds, by a proxy of the environment if any.

    A registry asks an unknown client who it is (401); that it asks is an answer. The time is that of a thread, because
    the search for the address of its name has a longer one of its own, where nobody answers.
    """
    said: list[bool] = []
    asking = Thread(target=lambda: said.append(_answers(name, get)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return said == [True]


def _answers(name: str, get: Callable[..., object]) -> bool:
    try:
        get(url_of(name), timeout=PATIENCE_S)
    except urllib.error.HTTPError as refused:
        return refused.code in (401, 403)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True
