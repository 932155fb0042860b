"""What tests of jobs do with a server: upload, wait, listen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.jobs.toy import MAIN
from tests.server.processes import TestedServer, until

LINES = "one two\nthree\nfour five six\nseven eight nine ten\n"


class JobServer(TestedServer):
    """A server that has the toy job too; its jobs compete as equals, so that tests need not wait long."""

    __test__ = False

    def __init__(self, data_dir: Path, *options: str, **given: Any) -> None:
        super().__init__(
            "--data-dir", str(data_dir), "--job-niceness", "0", *options, **{"code": MAIN, **given}
        )
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.jobs = data_dir / "jobs"

    def upload(self, lines: str = LINES, kind: str = "toy", **options: Any) -> httpx.Response:
        form = {"kind": kind, "options": json.dumps(options)}
        return self.http.post("/v1/jobs", data=form, files={"source": ("lines.txt", lines.encode())})

    def submit(self, lines: str = LINES, **options: Any) -> str:
        """Upload a job and return its id."""
        answer = self.upload(lines, **options)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        card: dict[str, Any] = answer.json()
        return card

    def wait(self, job_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a job is in one of the states."""
        until(lambda: self.job(job_id)["state"] in states, seconds=seconds)
        return self.job(job_id)

    def result(self, job_id: str) -> bytes:
        answer = self.http.get(f"/v1/jobs/{job_id}/result", params={"format": "jsonl"})
        assert answer.status_code == 200, answer.text
        return answer.content

    def pid(self, job_id: str) -> int:
        """Return the process of the toy job's latest attempt, once it is at work."""
        starts = self.jobs / job_id / "work" / "starts"
        until(lambda: starts.exists() and starts.read_text().endswith("\n"), seconds=60)
        return int(starts.read_text().split()[-1])

    def starts(self, job_id: str) -> int:
        starts = self.jobs / job_id / "work" / "starts"
        return len(starts.read_text().split()) if starts.exists() else 0

    def events(self, job_id: str, after: int | None = None, most: int = 10_000) -> list[dict[str, Any]]:
        """Listen until the end, or to so many events; each with its id, if any, its kind and its data."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        heard: list[dict[str, Any]] = []
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            if answer.status_code == 204:
                return heard
            assert answer.headers["content-type"].startswith("text/event-stream")
            block: dict[str, Any] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    block[name] = json.loads(value) if name == "data" else value
                elif "event" in block:
                    heard.append(block)
                    block = {}
                    if len(heard) >= most:
                        return heard
                else:
                    block = {}
        return heard

    def end(self) -> str:
        """Stop the server in order; return its log."""
        self.http.close()
        code, _, log = self.stop()
        assert code in (0, -15), log
        return log

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.http.close()
        self._client.close()
        self.process.kill()
        self.process.wait()
        self._reader.join(20)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
