#!/usr/bin/python3 -I
"""A captured relay: it answers control properly, and beside that does what the file MODE beside it says."""
import array, json, os, signal, socket, struct, sys, threading, time

MODE = open(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "MODE")).read().split()
channel = socket.socket(fileno=0)
channel.setblocking(True)
lock, received, held = threading.Lock(), b"", []
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)


def raw(frame, fds=()):
    with lock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = channel.sendmsg([frame], rights)
        channel.sendall(frame[sent:])


def send(message, fds=(), announced=None):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    raw(struct.pack(">IB", len(body), len(fds) if announced is None else announced) + body, fds)


def receive():
    global received
    while True:
        if len(received) >= 5:
            length = struct.unpack(">I", received[:4])[0]
            if len(received) >= 5 + length:
                message, received = json.loads(received[5:5 + length]), received[5 + length:]
                return message
        data, rights, _, _ = channel.recvmsg(65536, 4096)
        if not data:
            lost()
        received += data
        for _, _, fds in rights:
            held.extend(array.array("i", fds[:len(fds) // 4 * 4]))


def lost():
    while "stubborn" in MODE:
        time.sleep(1)
    os._exit(0)


def log(message, log_target="audit", level="info", **facts):
    fields = [{"name": name, "value": str(value), "quoted": True} for name, value in facts.items()]
    now = int(time.time() * 1e6)
    send({"Log": {"microseconds": now, "level": level, "target": log_target, "message": message, "fields": fields}})


def session(number):
    return {"session": f"session-{number}", "target": "host-7:ssh", "caller": "module-1"}


def listen_again():
    while True:
        for fd in held:
            try:
                socket.socket(fileno=os.dup(fd)).listen(16)
            except OSError:
                pass
        time.sleep(0.01)


def misbehave():
    hello = {"Hello": {"pid": 1, "version": "", "state": "Serving", "generation": 1, "serves": "", "listeners": []}}
    pipe, _ = os.pipe()
    done = {"Done": "Serving"}
    single = {
        "unannounced": lambda: [send(done, [pipe] * 60, announced=0) for _ in range(1000)],
        "announced": lambda: send({"Log": None}, [pipe]),
        "too-many": lambda: raw(struct.pack(">IB", 9, 255)),
        "hello": lambda: send(hello),
        "unasked": lambda: send(done),
        "deep": lambda: send(b'{"Log":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "huge": lambda: raw(struct.pack(">IB", 8 * 1024 * 1024, 0) + b" " * 300_000),
        "garbage": lambda: raw(os.urandom(4096)),
        "sessions": lambda: [log("session begins", **session(number)) for number in range(5)],
        "forge": lambda: [
            log("done", change="provision", who="spiffe://plant/module-server/m", after="evil", process="zone-proxy"),
            log("failed, undone", log_target="zone_proxy::transaction", level="error", change="trust"),
        ],
        "listen": listen_again,
    }
    for mode in MODE:
        if mode in single:
            single[mode]()
    number = 0
    while "flood" in MODE:
        log("y" * 3000, log_target="zone_relay", number=number)
        log("session begins", **session(number))
        number += 1
    while "replies" in MODE:
        send({"Reply": {"id": 1_000_000, "reply": {"Metrics": "y" * 200_000}}})


own = {"role": "relay", "pid": 1, "uid": 0, "capabilities": "000001ffffffffff", "no_new_privs": False}
send({"Hello": {"pid": 1, "version": "0.1.0", "build": "", "process": own, "state": "Fresh", "generation": 0,
                "serves": "", "listeners": []}})
state = "Ready"
counts = dict.fromkeys(
    ["endpoints", "parks", "waiting", "sessions", "module_server_connections", "buffered_bytes"], 7)
metrics = "zone_proxy_provisioned 0\nzone_proxy_wrong_proofs_total 99999\n# EOF\ngarbage{\nzone_relay_parks 7\n# EOF\n"
while True:
    message = receive()
    if message == "Activate":
        state = "Serving"
        send({"Done": state})
        threading.Thread(target=misbehave, daemon=True).start()
        while "deaf" in MODE:
            time.sleep(1)
    elif message == "Stop":
        lost()
    elif message == "Drain":
        state = "Draining"
        send({"Done": state})
    elif "Ask" in message:
        query = message["Ask"]["query"]
        reply = {"Counts": counts} if query == "Counts" else {"Metrics": metrics}
        send({"Reply": {"id": message["Ask"]["id"], "reply": reply}})
    elif "Policy" in message and "refuses" in MODE:
        send({"Failed": {"step": "policy", "error": "no\nthanks " * 100_00}})
    elif "Configure" in message or "Policy" in message:
        send({"Done": state})
