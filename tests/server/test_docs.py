from __future__ import annotations

import re


def test_the_api_page_needs_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(links) == 3
    assert "//" not in "".join(links)
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link
    assert "SwaggerUIBundle" in client.get("/docs/files/swagger-ui-bundle.js").text
    assert "url: 'openapi.json'" in page.text
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "http" not in re.sub(r"https?://www\.w3\.org/\S+", "", page.text)
