#!/usr/bin/env python3
"""Join standard input and output to a service of an endpoint, through a zone proxy.

What `zone-module connect --end-to-end off` does, with Python's standard library only:

    zone-module issue module-server example --out bundle
    python3 module_connect.py bundle PROXY_HOST[:17487] spiffe://ZONE/zone-proxy/NAME ENDPOINT:SERVICE

Each direction ends by itself: the end of standard input becomes close_notify, and reading goes on. That takes
SSLObject and MemoryBIO: SSLSocket.shutdown() drops TLS, and hides a connection that was cut off.
Exit status: 0 both directions ended cleanly, 1 refused, 2 wrong usage, 3 the session was cut off.
"""
import os, socket, ssl, sys, threading
SUITES = ":".join(f"ECDHE-{key}-AES{aes}" for key in ("ECDSA", "RSA") for aes in ("256-GCM-SHA384", "128-GCM-SHA256"))
CHUNK, LONGEST_HEAD, DEADLINE = 16384, 8192, 30

class Tls:
    """A TLS client whose directions end separately; one thread may read while another writes."""

    def __init__(self, sock, context):
        self.sock, self.lock = sock, threading.Lock()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing)
        while True:
            try:
                return self.object.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(self.outgoing.read())
                self.incoming.write(sock.recv(CHUNK)) or self.incoming.write_eof()

    def write(self, data):
        with self.lock:
            self.object.write(data)
        self.sock.sendall(self.outgoing.read())

    def close_writing(self):
        """Sends close_notify. unwrap() would fail on bytes not yet decrypted: read() leaves none behind."""
        with self.lock:
            try:
                self.object.unwrap()
            except ssl.SSLWantReadError:
                pass  # The other side's close_notify comes when it has nothing more to say.
        self.sock.sendall(self.outgoing.read())
        self.sock.shutdown(socket.SHUT_WR)

    def read(self):
        """Yields what comes, until the other side's close_notify; an end without one is an SSLEOFError."""
        end = ssl.SSLWantReadError()
        while isinstance(end, ssl.SSLWantReadError):
            data, plain = self.sock.recv(CHUNK), []
            with self.lock:
                self.incoming.write(data) or self.incoming.write_eof()
                try:
                    while piece := self.object.read(CHUNK):
                        plain.append(piece)
                    end = ssl.SSLZeroReturnError()
                except ssl.SSLError as error:
                    end = error
            yield b"".join(plain)
        if not isinstance(end, ssl.SSLZeroReturnError):
            raise end

def connect(bundle, address, identity, target):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.check_hostname = False  # The SPIFFE name says who it is; where it is does not matter.
    context.load_verify_locations(f"{bundle}/zone-proxy-ca.crt")
    context.load_cert_chain(f"{bundle}/module-server.crt", f"{bundle}/module-server.key")
    host, _, port = address.partition(":")
    tls = Tls(socket.create_connection((host, int(port or 17487)), DEADLINE), context)
    names = [name for kind, name in tls.object.getpeercert().get("subjectAltName", ()) if kind == "URI"]
    if names != [identity]:
        sys.exit(f"{address} is {names}, not {identity}")
    tls.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head, received = b"", tls.read()
    while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD:
        head += next(received, b"\r\n\r\n")
    head, _, early = head.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not status.startswith("HTTP/1.1 200 "):
        sys.exit(f"{address} refused {target}: {ascii(fields.get('proxy-status', status))}")
    if fields.get("zone-end-to-end") != "off":
        sys.exit(f"{target} wants TLS end to end, which this example does not speak")
    tls.sock.settimeout(None)
    return tls, early, received

def upload(tls, failures):
    try:
        while data := os.read(0, CHUNK):
            tls.write(data)
        tls.close_writing()
    except OSError as error:
        failures.append(error)

def copy(tls, early, received):
    failures = []
    uploading = threading.Thread(target=upload, args=(tls, failures), daemon=True)
    uploading.start()
    with open(1, "wb") as output:  # Closed at close_notify, so that its reader sees the end at once.
        output.write(early)
        for data in received:
            output.write(data)
            output.flush()
    uploading.join()
    if failures:
        raise failures[0]

if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(print(__doc__, file=sys.stderr) or 2)
    session = None
    try:
        session = connect(*sys.argv[1:])
        copy(*session)
    except OSError as error:
        print(f"{sys.argv[2]}: {'the session was cut off: ' if session else ''}{error}", file=sys.stderr)
        os._exit(3 if session else 1)
