#!/usr/bin/python3
"""Has a Coppice farm build a derivation: a whole client in one file, after docs/protocol.md.

    client.py tcp://HOST:PORT KEY.toml /nix/store/HASH-NAME.drv

KEY.toml is a key of role submitter or admin, as `coppice-admin keygen` makes it; it also holds the node's public key.
On the node's own machine <state dir>/endpoint.toml says where it listens, and <state dir>/keys/client.toml is a key.
The derivation may lie in another store, /some/root/nix/store/HASH-NAME.drv, if NIX_REMOTE says so to nix-store too.

Prints the store paths of the outputs, which the node's binary cache serves; on standard error, what happens on the way,
and of what fails the end of the log. What is lost on the way is said again, so the node may be killed and come back.
Interrupted, it leaves the request to the farm; started again, it finds what was built in the meantime.

Exit codes: 0 built, 1 a build failed, 3 the farm cannot be reached or refuses, 4 somebody cancelled the request.
Needs Debian's python3-zmq and python3-msgpack, and nix-store, which knows what the derivation needs.
"""

import hashlib, itertools, os, secrets, subprocess, sys, time, tomllib, urllib.parse, urllib.request
import msgpack, zmq, zmq.utils.monitor

STEPS = ["planned", "queued", "building", "built", "reused", "failed", "not attempted", "built, not uploaded yet"]


class Node:
    def __init__(self, endpoint, key_file):
        with open(key_file, "rb") as f:
            key = tomllib.load(f)
        self.ids, self.socket = itertools.count(1), zmq.Context.instance().socket(zmq.DEALER)
        self.socket.curve_serverkey = key["server_key"].encode()
        self.socket.curve_publickey, self.socket.curve_secretkey = key["public_key"].encode(), key["secret_key"].encode()
        self.socket.linger, self.socket.sndtimeo = 0, 15000
        handshake = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self.socket.connect(endpoint)
        if not handshake.poll(15000):
            raise ConnectionError(f"no answer from {endpoint}: nobody is there, or server_key is not its key")
        if zmq.utils.monitor.recv_monitor_message(handshake)["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise ConnectionError(f"{endpoint} does not know this key: its authorized.toml does not have it")

    def send(self, envelope, body=b""):
        self.socket.send_multipart([msgpack.packb({1: 1, **envelope}), body])

    def call(self, target, method, message):
        """The answer to a message, which is said again while none comes."""
        why = "no answer"
        for id in itertools.islice(self.ids, 6):
            self.send({2: 1}, msgpack.packb({1: "coppice", 2: 1, 3: 1, 4: "client.py"}))  # hello: repeated, harmless
            self.send({2: 4, 3: id, 4: target, 5: method}, msgpack.packb(message))
            while self.socket.poll(10000):
                head, body = self.socket.recv_multipart()
                head = msgpack.unpackb(head, strict_map_key=False)
                if head[2] == 7:  # ping
                    self.send({2: 8, 3: head[3]})
                elif head[2] == 5 and head[3] == id:  # reply
                    return msgpack.unpackb(body, strict_map_key=False, unicode_errors="surrogateescape")
                elif head[2] == 3 or (head[2] == 6 and head[3] == id):  # refuse, error
                    why = f"{head.get(7)} (error {head[6]})"
                    if head[6] > 10 or head[6] == 8:
                        raise ConnectionError(why)
                    time.sleep(2)  # it passes
                    break
        raise ConnectionError(why)


def put(lacks, name, body):
    url, ticket = f"{lacks[3]}/{urllib.parse.quote(name)}", {"Authorization": f"Bearer {lacks[4]}"}
    urllib.request.urlopen(urllib.request.Request(url, body, ticket, method="PUT")).close()


def submit(node, drv):
    """The id of a request for all outputs of the derivation, when it is durable."""
    store, root = os.path.split(drv)
    needed = subprocess.check_output(["nix-store", "--query", "--requisites", f"/nix/store/{root}"], text=True)
    needed = [os.path.basename(path) for path in needed.split()]  # each after those that it refers to
    sources = [p for p in needed if not p.endswith(".drv")]
    closure = msgpack.packb([[p, open(os.path.join(store, p), "rb").read()] for p in needed if p.endswith(".drv")])
    blob, request = hashlib.sha256(closure).digest(), secrets.token_bytes(16)
    lacks = node.call("gateway", "missing", {1: sources, 2: blob})
    for source in sorted(lacks.get(1, []), key=sources.index):
        with subprocess.Popen(["nix-store", "--export", f"/nix/store/{source}"], stdout=subprocess.PIPE) as export:
            put(lacks, f"source/{source}", export.stdout)
    if lacks.get(2):
        put(lacks, f"closure/{blob.hex()}", closure)
    node.call("gateway", "submit", {1: request, 2: {1: [{1: root}], 2: blob}})
    return request


def follow(node, request):
    """The result of the request, when it is over."""
    progress = {}
    while not progress.get(2):
        progress = node.call("gateway", "poll", {1: request, 2: progress.get(3, 0), 3: 5000})
        for event in progress.get(6, []):
            print(f"{event[2][33:]}: {STEPS[event.get(4, 0)]} {event.get(8, '')}".rstrip(), file=sys.stderr)
    return progress[9]


def main(endpoint, key_file, drv):
    node = Node(endpoint, key_file)
    result = follow(node, submit(node, drv))
    for failure in result.get(3, []):
        print(f"{failure[1][33:]}: {failure[5]}\n{failure.get(6, '')}", end="", file=sys.stderr)
    for output in result[2][0].get(2, []):
        print(f"/nix/store/{output[2][1]}")
    return {1: 0, 2: 1, 3: 4}[result[1]]


try:
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 4 else __doc__)
except (OSError, zmq.ZMQError, subprocess.CalledProcessError) as e:
    print(f"client.py: {e}", file=sys.stderr)
    sys.exit(3)
