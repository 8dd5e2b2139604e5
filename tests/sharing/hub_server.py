"""A small server of the Hub's API: repositories of models in memory.

It knows what `snapshot_download`, `create_repo` and `upload_folder` ask for,
one commit for each repository.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

HUB = "https://huggingface.co"
"""What answers call us: the client knows no other."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers from `repositories`: files by repository, then name."""

  repositories: dict[str, dict[str, bytes]]

  def log_message(self, *_):
    """Says nothing."""

  def _send(self, body, code=200, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    self.send_response(code)
    for name, value in headers.items():
      self.send_header(name.replace("_", "-"), value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(content)

  def _missing(self):
    self._send({}, 404, X_Error_Code="RepoNotFound")

  def do_GET(self):
    path = urllib.parse.unquote(self.path.split("?")[0])
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "models"]:
      files = self.repositories.get("/".join(parts[2:4]))
      if files is None:
        self._missing()
      elif parts[4:5] == ["tree"]:
        self._send(
          [
            {"type": "file", "path": name, "size": len(content), "oid": "0"}
            for name, content in files.items()
          ]
        )
      else:
        siblings = [{"rfilename": name} for name in files]
        name = "/".join(parts[2:4])
        self._send(
          {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}
        )
    elif len(parts) > 4 and parts[2] == "resolve":
      content = self.repositories.get("/".join(parts[:2]), {}).get(parts[4])
      if content is None:
        self._missing()
      else:
        digest = hashlib.sha256(content).hexdigest()
        self._send(content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT)
    else:
      self._missing()

  do_HEAD = do_GET

  def do_POST(self):
    size = int(self.headers.get("Content-Length") or 0)
    body = self.rfile.read(size)
    parts = self.path.split("?")[0].strip("/").split("/")
    if parts == ["api", "repos", "create"]:
      asked = json.loads(body)
      owner = asked.get("organization") or "me"
      name = f"{owner}/{asked['name']}"
      self.repositories.setdefault(name, {})
      self._send({"url": f"{HUB}/{name}", "name": name, "id": name})
    elif parts[4:5] == ["preupload"]:
      files = [
        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
        for one in json.loads(body)["files"]
      ]
      self._send({"files": files})
    elif parts[4:5] == ["commit"]:
      name = "/".join(parts[2:4])
      files = self.repositories[name]
      for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
          value = line["value"]
          files[value["path"]] = base64.b64decode(value["content"])
      self._send(
        {
          "commitUrl": f"{HUB}/{name}/commit/{COMMIT}",
          "commitOid": COMMIT,
        }
      )
    else:
      self._send({})


@contextlib.contextmanager
def served(repositories):
  """Serves repositories; yields the address."""
  handler = type("Bound", (Handler,), {"repositories": repositories})
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
