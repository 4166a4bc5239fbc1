"""An S3 on loopback: moto's, with its requests recorded in a folder, so that it has its objects again after a SIGKILL.

s3.py FOLDER PORT, where port 0 is a free one. Prints HOST:PORT once it answers, and ends when its standard input does.
Uploads in several parts are not there again: they get other names in a second run.
"""

import io
import os
import random
import sys
import threading
from pathlib import Path

FOLDER, PORT = Path(sys.argv[1]), int(sys.argv[2])
RECORDING = FOLDER / "requests"
# Read where moto is imported.
os.environ["MOTO_RECORDER_FILEPATH"] = str(RECORDING)

from moto.moto_api import recorder
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class OneAtATime:
    """S3 decides a conditional PUT at one instant; moto looks and then writes, and another thread could come between."""

    def __init__(self, app):
        self.app, self.lock = app, threading.Lock()

    def __call__(self, environ, start_response):
        # What is still being sent is waited for outside.
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with self.lock:
            answer = self.app(environ, start_response)
            try:
                return list(answer)
            finally:
                getattr(answer, "close", lambda: None)()


class KeepsAlive(MotoRequestHandler):
    protocol_version = "HTTP/1.1"


def listen(ports):
    for port in ports:
        try:
            server = make_server("127.0.0.1", port, app, threaded=True, request_handler=KeepsAlive)
        except (OSError, SystemExit):
            continue
        threading.Thread(target=server.serve_forever).start()
        return server
    sys.exit("no port is free")


def replay():
    """Where nobody else can ask meanwhile, who would find half of it."""
    # The last one may be torn.
    whole = RECORDING.read_bytes()
    RECORDING.write_bytes(whole[: whole.rfind(b"\n") + 1])
    private = listen([0])
    recorder.replay_recording(target_host=f"http://127.0.0.1:{private.port}")
    private.shutdown()
    private.server_close()


def end_with_owner():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_owner, daemon=True).start()
app = OneAtATime(DomainDispatcherApplication(create_backend_app))
if RECORDING.exists():
    replay()
recorder.start_recording()
# Below the ports that the kernel gives to connections, so that it is still free when this starts again.
server = listen([PORT] if PORT else random.sample(range(10_000, 32_000), 100))
print(f"127.0.0.1:{server.port}", flush=True)
