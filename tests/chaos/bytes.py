"""A byte is flipped: of a NAR on the store's disk, or on its way between a member and the store. It is noticed, and what
is built is right all the same."""

import contextlib
import itertools
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import HTTP_PORT, HUB, wait_until
from farm import OK

PROXY_PORT = 8081


class OnDisk(chaos.Chaos):
    def flip(self, file, at):
        with open(file, "r+b") as f:
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 1]))

    def test_a_nar_that_rots_on_disk_is_never_used_and_built_again(self):
        self.ends_with(self.hub.admin("drain", "hub"), OK)
        client, holder, other = self.begin()
        wait_until("all else is built", lambda: self.built("s-3-") == 4)
        where = {farm.drv_name(a["drv"]): a["node"] for a in self.hub.attempts()}
        # one that the machine which builds `top` has to fetch, and that nobody has but the store
        rotten = next(name for name, node in where.items() if name.startswith("s-3-") and node == other)
        self.nodes[other].kill()
        drv = next(d for d in self.stock.graph if farm.drv_name(d) == rotten)
        out = next(o for o in self.stock.outputs(rotten) if not o.endswith("-dev"))
        url = self.hub.narinfo(out)["URL"]
        file = os.path.join(self.hub.state, "cache", url)
        self.flip(file, os.path.getsize(file) // 2)
        self.let_go(client)
        self.assertIn("store lost path=" + out, self.nodes[holder].daemon.err())
        self.outputs_are_right(client, told=["--lost", drv])

    def built(self, prefix):
        return len({a["drv"] for a in self.hub.attempts() if farm.drv_name(a["drv"]).startswith(prefix) and a["result"] == "success"})


class Flipping:
    """A proxy on the hub's machine in front of its store; flips a byte now and then, in either direction, so that each
    blob comes through sound after some tries."""

    APART = (20_000, 200_000)  # bytes between two flips; the largest blob has 140 kB

    def __init__(self, net):
        self.net, self.flips, self.lock, self.apart = net, 0, threading.Lock(), itertools.cycle(self.APART)
        self.left = next(self.apart)
        self.server = net.call(HUB, lambda: socket.create_server((net.address(HUB), PROXY_PORT)))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                mine, _ = self.server.accept()
            except OSError:
                return
            theirs = self.net.call(HUB, lambda: socket.create_connection((self.net.address(HUB), HTTP_PORT)))
            for a, b in ((mine, theirs), (theirs, mine)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 16):
                b.sendall(self.spoil(data))
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        a.close()

    def spoil(self, data):
        """Never what may be the head of a request or an answer, which is another fault."""
        with self.lock:
            if b"HTTP/1.1" in data and len(data) < 2048:
                return data
            self.left -= len(data)
            if self.left > 0:
                return data
            self.left = next(self.apart)
            self.flips += 1
        return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:] if len(data) > 100 else data[:-1] + bytes([data[-1] ^ 1])

    def close(self):
        self.server.close()


class OnTheWay(chaos.Chaos):
    MORE = f'http_url = "http://10.77.0.{HUB}:{PROXY_PORT}"\n'

    def test_bytes_that_are_spoilt_on_the_way_are_sent_again(self):
        proxy = Flipping(self.net)
        self.addCleanup(proxy.close)
        client, _, _ = self.begin()
        self.let_go(client)
        self.assertGreaterEqual(proxy.flips, 2)
        print(f"{proxy.flips} bytes were flipped", file=sys.stderr)
        self.outputs_are_right(client)


if __name__ == "__main__":
    farm.main()
