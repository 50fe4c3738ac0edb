"""An S3 server on a free port of loopback, in memory: moto's, one request at a time.

Its own way to serve them, many at a time, looks whether an object is there and then puts it, with others in between: conditional
puts, which tests rely upon, would not be what they are.
"""

import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

server = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    with turn:
        return list(server(environ, start_response))


run_simple("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
