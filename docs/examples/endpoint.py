#!/usr/bin/env python3
"""An endpoint with one park and one service (`end_to_end` off), with Python's standard library only.

    python3 endpoint.py BUNDLE PROXY_HOST:17486 spiffe://ZONE/endpoint/ID SERVICE TARGET_HOST:PORT

BUNDLE is what `zone-module issue endpoint ID --out BUNDLE` wrote. Each direction of a session ends by itself:
close_notify becomes FIN and FIN close_notify; a truncation becomes a reset, after what came before. That takes
SSLObject over MemoryBIO: SSLSocket.shutdown() drops TLS.
"""
import fcntl, os, random, select, socket, ssl, struct, sys, termios, time
SUITES = ":".join(f"ECDHE-{key}-AES{aes}" for key in ("ECDSA", "RSA") for aes in ("256-GCM-SHA384", "128-GCM-SHA256"))
PARK = "Connection: Upgrade", "Upgrade: ptth/1", f"Zone-Instance: {os.urandom(16).hex()}"  # One per program.
CHUNK, LONGEST_HEAD, SILENCE, TARGET_DEADLINE, LAST_WORDS, LONGEST_BACK_OFF = 16384, 4096, 45, 2, 10, 60

class Tls:
    def __init__(self, sock, context):
        self.sock, self.ended, self.received, self.unsent = sock, False, b"", b""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing)
        try:
            while self.run(self.object.do_handshake) is False:
                self.flush()
                self.read()
        finally:
            self.flush()  # If the handshake failed, this is the alert that tells the proxy why.
    def run(self, action, *arguments):
        """What the action gives: b"" at the end of a direction, False where it wants more from the network."""
        try:
            return action(*arguments)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError) as error:
            return False if isinstance(error, ssl.SSLWantReadError) else b""
        finally:
            self.unsent += self.outgoing.read()
    def flush(self):
        self.sock.sendall(self.unsent)
        self.unsent = b""
    def read(self):
        """What one recv() brings, maybe nothing yet; `ended` is set at close_notify. A truncation is an SSLEOFError."""
        data, plain = self.sock.recv(CHUNK), b""
        self.incoming.write(data) if data else self.incoming.write_eof()
        while data := self.run(self.object.read, CHUNK):
            plain += data
        self.ended = data is not False
        return plain  # Nothing is left undecrypted: unwrap() would fail on it when the other direction ends.
    def write_head(self, *lines):
        self.run(self.object.write, "\r\n".join((*lines, "", "")).encode())
        self.flush()
    def read_head(self):
        """The lines of a head; EOFError where the proxy lets go of the park in an orderly way."""
        while b"\r\n\r\n" not in self.received:
            if self.ended or len(self.received) > LONGEST_HEAD:
                raise EOFError("closed") if self.ended else ConnectionError("it sent a head without an end")
            self.received += self.read()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return head.decode("latin-1").split("\r\n")

def park(context, proxy, zone, own_id, service, target):
    """Parks one connection and serves the session that it becomes."""
    with socket.create_connection(proxy.rsplit(":", 1), SILENCE) as sock:
        tls = Tls(sock, context)
        names = [name for kind, name in tls.object.getpeercert().get("subjectAltName", ()) if kind == "URI"]
        if len(names) != 1 or not names[0].startswith(f"spiffe://{zone}/zone-proxy/"):
            raise ConnectionError(f"it is {names}, not a proxy of zone {zone}")
        tls.write_head("GET /v1/park HTTP/1.1", f"Host: {proxy}", *PARK)
        answer = tls.read_head()
        if not answer[0].startswith("HTTP/1.1 101 ") or "upgrade: ptth/1" not in map(str.lower, answer):
            raise ConnectionError(f"it refuses the park: {answer}")
        while (request := tls.read_head()[0]) == "OPTIONS * HTTP/1.1":  # Now the proxy is the client, and pings.
            tls.write_head("HTTP/1.1 200 OK", "Content-Length: 0")
        if request != f"CONNECT {own_id}:{service} HTTP/1.1" or tls.received:
            return tls.write_head("HTTP/1.1 404 No Such Service", "Content-Length: 0", "Connection: close")
        try:
            local = socket.create_connection(target.rsplit(":", 1), TARGET_DEADLINE)
        except OSError:
            return tls.write_head("HTTP/1.1 502 Target Refused", "Content-Length: 0", "Connection: close")
        tls.write_head("HTTP/1.1 200 OK", "Zone-End-To-End: off")
        with local:
            join(tls, local)

def join(tls, local):
    """Copies both ways until both directions have ended. A side is read only when the other has taken all before."""
    inward, local_ended = b"", False
    try:
        while not (tls.ended and local_ended) or inward or tls.unsent:
            reading = [tls.sock] * (not tls.ended and not inward) + [local] * (not local_ended and not tls.unsent)
            readable, writable, _ = select.select(reading, [local] * bool(inward) + [tls.sock] * bool(tls.unsent), [])
            if tls.sock in writable:
                tls.unsent = tls.unsent[tls.sock.send(tls.unsent):]
            if tls.sock in readable or local in writable:
                inward = tls.read() if tls.sock in readable else inward[local.send(inward):]
                if tls.ended and not inward:
                    local.shutdown(socket.SHUT_WR)
            if local in readable:
                local_ended = not (data := local.recv(CHUNK))
                tls.run(tls.object.write, data) if data else tls.run(tls.object.unwrap)
    except OSError:  # One side broke off; so the other is broken off too, after what came before.
        for _ in range(100 * LAST_WORDS):
            time.sleep(0.01 * any(fcntl.ioctl(local, termios.TIOCOUTQ, bytes(4))))  # Unsent: a reset would discard it.
        local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tls.flush()
        raise

if __name__ == "__main__":
    bundle, proxy, identity, service, target = sys.argv[1:] if len(sys.argv) == 6 else sys.exit(__doc__)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.check_hostname = False  # A proxy is known by its SPIFFE name, wherever it is.
    context.load_verify_locations(os.path.join(bundle, "zone-proxy-ca.crt"))
    context.load_cert_chain(os.path.join(bundle, "endpoint.crt"), os.path.join(bundle, "endpoint.key"))
    failures = 0
    while True:
        try:
            park(context, proxy, *identity.removeprefix("spiffe://").split("/endpoint/"), service, target)
            failures = 0
        except (EOFError, OSError) as error:
            sys.stderr.write(f"{proxy}: {error}\n")
            failures = failures + 1 if isinstance(error, OSError) else 0
        time.sleep(random.uniform(0, min(LONGEST_BACK_OFF, 2 ** failures) if failures else 0.1))  # Full jitter.
