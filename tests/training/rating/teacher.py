"""A chat endpoint that answers as a test says, and clients of it."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from latentrec.prompts.rating_format import RatingScale, render_answer
from latentrec.training.rating.chat_endpoint import ChatEndpoint, RateLimit
from latentrec.training.rating.traces import TracesConfig

SCALE = RatingScale()
GOOD = render_answer("u", "i", "m", 4.0)


class Teacher:
    """A chat endpoint scripted by a test: ``script(prompt, attempt)`` gives status, body and headers."""

    def __init__(self, script):
        self.script = script
        self.asked = Counter()
        self.requests = []
        self.lock = threading.Lock()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                with teacher.lock:
                    teacher.asked[prompt] += 1
                    attempt = teacher.asked[prompt]
                    teacher.requests.append((time.monotonic(), prompt, dict(self.headers)))
                status, answer, headers = teacher.script(prompt, attempt)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def chat(text, prompt_tokens=100, completion_tokens=20):
    return {
        "model": "teacher-1",
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def endpoint(url, **settings):
    given = {"attempts": 4, "backoff": 0.01, "timeout": 5.0, "rate": RateLimit(0), **settings}
    return ChatEndpoint(url, "teacher", **{"key_variable": "OPENAI_API_KEY", **given})


def ask(client):
    return client.ask("hello", key="k", temperature=0.0, max_tokens=10)


def config(url, **settings):
    fast = {"requests_per_minute": 0.0, "backoff": 0.01, "concurrency": 3, "samples": 12, "attempts": 3}
    return TracesConfig(endpoint=url, model="teacher", **{**fast, **settings})
