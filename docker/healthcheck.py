"""What HEALTHCHECK runs inside the container: exit status 0 when /ready answers 200."""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request

TIMEOUT_S = 4  # below the image's --timeout


def main() -> int:
    """Ask the server in this container; a certificate is not checked, since it names another host."""
    scheme = "https" if os.environ.get("EMBEDSVC_TLS_CERT") else "http"
    url = f"{scheme}://127.0.0.1:{os.environ.get('EMBEDSVC_PORT', '8080')}/ready"
    context = ssl._create_unverified_context() if scheme == "https" else None
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context) as answer:
            print(answer.status)
            return 0
    except OSError as error:
        print(f"{url}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
