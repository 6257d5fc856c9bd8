"""The HTTP server of the emulators."""

import http.server
import socketserver


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self):
        """Without asking for the name of its address: in a network namespace without a name server that takes ten seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
