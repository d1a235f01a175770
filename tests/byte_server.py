"""A loopback server that answers every connection with the bytes that a test wants, HTTP or not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


@contextlib.contextmanager
def sending(chunks, pause=0.0):
    """The address of a server that answers every connection with these bytes."""

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for chunk in chunks():
                connection.sendall(chunk)
                time.sleep(pause)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
