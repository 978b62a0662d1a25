"""Machines on one network, each a network namespace with an address of its own, whose cables can be cut.

A namespace lives as long as a process that holds it, and those end with the test, however that ends: nothing has a name
outside, so nothing is left behind and tests at the same time do not meet."""

import ctypes
import os
import subprocess
import threading
import unittest

import farm

SWITCH = 0  # no machine: where the cables end
CUT = """table inet cut {
  set from { type ipv4_addr; }
  set from_to_port { type ipv4_addr . inet_service; }
  set from_port { type ipv4_addr . inet_service; }
  counter lost { packets 0 bytes 0 }
  chain in { type filter hook input priority 0; ip saddr @from counter name lost drop; }
  chain ports { type filter hook input priority 1;
    ip saddr . tcp dport @from_to_port counter name lost drop;
    ip saddr . tcp sport @from_port counter name lost drop; }
}
"""


class Machine:
    """One of a network."""

    def __init__(self, net, number):
        self.net, self.number, self.address = net, number, net.address(number)
        self.inside = net.inside(number)

    def call(self, function):
        return self.net.call(self.number, function)


class Network:
    """Machines 1 to `count`. Needs root."""

    def __init__(self, count):
        self.holders, self.cuts, self.cut_ports = {}, set(), set()
        try:
            self._make(count)
        except (OSError, AssertionError) as e:
            self.close()
            why = f"cannot make network namespaces: {e}"
            if os.environ.get("COPPICE_NO_NETNS") == "1":
                raise unittest.SkipTest(why) from e
            raise AssertionError(f"{why}; COPPICE_NO_NETNS=1 leaves out the tests that need them") from e

    def _make(self, count):
        for who in range(count + 1):
            self.holders[who] = subprocess.Popen(farm.END_WITH_PARENT + ["unshare", "--net", "sleep", "infinity"],
                                                 stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for holder in self.holders.values():
            farm.wait_until("a network namespace is made", lambda: self._holds(holder), 10)
        machines = range(1, count + 1)
        self._ip(SWITCH, "link add br0 type bridge", "link set br0 up", *(
            f"link add cable{i} type veth peer name eth0 netns {self.holders[i].pid}" for i in machines))
        for i in machines:
            self._ip(i, f"addr add {self.address(i)}/24 dev eth0", "link set eth0 up", "link set lo up")
            self.run(i, "nft", "-f", "-", text=CUT)
        self._ip(SWITCH, *(f"link set cable{i} master br0 up" for i in machines))

    def _holds(self, holder):
        if holder.poll() is not None:
            raise AssertionError(holder.stderr.read().decode().strip())
        return os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net")

    def run(self, who, *argv, text=None):
        """What that program prints, run on that machine."""
        done = subprocess.run([*self.inside(who), *argv], input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=False)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def _ip(self, who, *commands):
        self.run(who, "ip", "-batch", "-", text="\n".join(commands))

    def machine(self, who):
        return Machine(self, who)

    def address(self, who):
        return f"10.77.0.{who}"

    def inside(self, who):
        """What stands before a command line to have it run on that machine."""
        return ["nsenter", f"--net=/proc/{self.holders[who].pid}/ns/net", "--"]

    def call(self, who, function):
        """Calls it with that machine's network; sockets that it makes stay there. It must not start processes: they would
        end with the call."""
        results = []

        def run():
            with open(f"/proc/{self.holders[who].pid}/ns/net", "rb") as f:
                if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            try:
                results.append((function(), None))
            except Exception as e:  # passed on
                results.append((None, e))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        result, error = results[0]
        if error:
            raise error
        return result

    # Silently, as networks part: packets vanish, and nobody is told.

    def cut_one_way(self, sender, receiver):
        """What the one sends to the other is lost; not what comes back."""
        if (sender, receiver) not in self.cuts:
            self._nft_set("add", sender, receiver)

    def _nft_set(self, verb, sender, receiver):
        self._element(receiver, verb, "from", self.address(sender))
        self.cuts ^= {(sender, receiver)}

    def _element(self, who, verb, name, value):
        self.run(who, "nft", verb, "element", "inet", "cut", name, "{", value, "}")

    def cut(self, a, b, port=None):
        """With a port: only connections of a to that port of b."""
        if port is None:
            self.cut_one_way(a, b)
            self.cut_one_way(b, a)
        elif (a, b, port) not in self.cut_ports:
            self._port(a, b, port, "add")

    def _port(self, a, b, port, verb):
        self._element(b, verb, "from_to_port", f"{self.address(a)} . {port}")
        self._element(a, verb, "from_port", f"{self.address(b)} . {port}")
        self.cut_ports ^= {(a, b, port)}

    def heal(self, a, b):
        """Whatever was cut between these two, and nothing else."""
        for sender, receiver in self.cuts & {(a, b), (b, a)}:
            self._nft_set("delete", sender, receiver)
        for cut in [cut for cut in self.cut_ports if set(cut[:2]) == {a, b}]:
            self._port(*cut, "delete")

    def refuse(self, sender, receiver, port):
        """Connections of the one to that port of the other are refused, and those that are open break."""
        self.run(receiver, "nft", "add", "rule", "inet", "cut", "in", "ip", "saddr", self.address(sender), "tcp", "dport", str(port),
                  "reject", "with", "tcp", "reset")

    def accept(self, receiver):
        """Whatever was refused there, and nothing else."""
        self.run(receiver, "nft", "flush", "chain", "inet", "cut", "in")
        self.run(receiver, "nft", "add", "rule", "inet", "cut", "in", "ip", "saddr", "@from", "counter", "name", "lost", "drop")

    def unplug(self, who):
        """Cuts it off from everybody."""
        self._ip(SWITCH, f"link set cable{who} nomaster")

    def plug_in(self, who):
        self._ip(SWITCH, f"link set cable{who} master br0")

    def slow(self, who, rate):
        """What it sends goes no faster, e.g. "8mbit"; None: as fast as it can."""
        tbf = ["replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "50ms"]
        self.run(who, "tc", "qdisc", *(tbf if rate else ["del", "dev", "eth0", "root"]))

    def lost(self, receiver):
        """Packets to that machine that cuts have swallowed."""
        words = self.run(receiver, "nft", "list", "counter", "inet", "cut", "lost").split()
        return int(words[words.index("packets") + 1])

    def sent(self, who):
        """Packets that the machine has put on its cable."""
        return int(self.run(SWITCH, "cat", "/proc/net/dev").split(f"cable{who}:")[1].split()[1])

    def close(self):
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
            holder.stderr.close()
        self.holders = {}
