"""S3 on this machine, in memory: says its port and answers until it is killed; needs moto with flask.

One request at a time, so that its conditional writes are one step each, as those of S3 are.
"""

import logging
import sys

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = make_server("127.0.0.1", port, DomainDispatcherApplication(create_backend_app))
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()
