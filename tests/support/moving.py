"""A farm without a single point of failure: three machines, each with an etcd member, a coppiced that is the hub or stands by,
and a member; the store is a bucket of an S3 server on a fourth, where the clients are, too. Daemons are started again whenever
they end, as an init system does. See chaos.py for what is checked in the end."""

import json
import os
import shutil
import signal

import chaos
import etcd
import farm
import rgw
from chaos import OUTSIDE, wait_until
from farm import OK
from net import Network
from process_history import Recorder

MACHINES = ("m1", "m2", "m3")
MEMBERS = ("elm", "oak", "ash")  # on them, in this order
BUCKET = "farm"
LEDGER_LEASE_S = 3  # so long the hub's machine may say nothing to etcd
# again and again, and for SIGTERM until it has ended in order
INIT = 'trap \'kill $pid; wait $pid; exit $?\' TERM; while :; do setpriv --pdeathsig KILL -- "$@" & pid=$!; wait $pid; sleep 0.2; done'


class Kept(farm.Farm):
    """A coppiced that is started again whenever it ends."""

    def __init__(self, scratch, machine, name, port, settings, jobs=2):
        super().__init__(scratch, state=scratch.file(name), settings=settings, jobs=jobs, machine=machine,
                         listen=f"tcp://{machine.address}:{port}", http=f"{machine.address}:{port + 3080}")

    def start(self):
        self.daemon = self.scratch.start(["sh", "-c", INIT, "init", *self.argv], inside=self.inside)
        return self

    def serves(self):
        """Waits until it does."""
        wait_until(f"{self.state} serves", lambda: self.daemon.out().endswith("\n"))
        self.ready = json.loads(self.daemon.out().splitlines()[-1])
        return self

    def processes(self):
        """The ids of coppiced's: one, if it is not between two lives."""
        return [pid for pid, (parent, _, command) in farm.processes().items() if parent == self.daemon.pid and "coppiced" in command]

    def _signal(self, number):
        for pid in self.processes():
            os.kill(pid, number)

    def pause(self):
        self._signal(signal.SIGSTOP)

    def resume(self):
        self._signal(signal.SIGCONT)

    def stop(self):
        self.resume()
        return super().stop()


class Everywhere(farm.Farm):
    """The farm as its clients see it, who know where the hub may be, and have a key."""

    def __init__(self, test, machine):
        self.test, self.scratch, self.machine, self.inside = test, test.scratch, machine, machine.inside
        self.state, self.daemon, self.recorder, self.key = test.scratch.file("seen"), None, None, None

    def client(self, tool, *words):
        nodes = [w for endpoint in self.test.endpoints for w in ("--node", endpoint)]
        return [os.path.join(farm.BIN, tool), *words, *nodes, "--key", self.key, "--state-dir", self.state]

    def alive(self):
        return False

    def stop(self):
        """All machines; and what they leave behind comes to where the checker looks."""
        ends = [hub.stop() for hub in self.test.hubs.values() if hub.alive()]
        for store in ("cache", "keys"):
            shutil.rmtree(os.path.join(self.state, store), ignore_errors=True)
        self.test.rgw.mirror(BUCKET, os.path.join(self.state, "cache"))
        shutil.copytree(os.path.join(self.test.hubs["m1"].state, "keys"), os.path.join(self.state, "keys"))
        farm.write(os.path.join(self.state, "etcd.json"), self.test.etcd.ctl("get", "--prefix", "/coppice/", "-w", "json").stdout)
        return next((end for end in ends if end.code != 0), farm.Done([], 0, "", ""))


class MovingFarm(chaos.Chaos):
    TEMPORARY = ("uploads", "kept", "spool/uploads", "local/staging")
    MORE_OF = {"oak": chaos.SLOW, "ash": chaos.SLOW}  # settings of members: what is held is not built where the hub is at first

    def setUp(self):
        farm.TestCase.setUp(self)
        self.word = self.stock_word
        self.net = Network(OUTSIDE)
        self.addCleanup(self.net.close)
        machines = {name: self.net.machine(number + 1) for number, name in enumerate(MACHINES)}
        self.rgw = rgw.Rgw(self.scratch.file("ceph"), machine=self.net.machine(OUTSIDE))
        self.addCleanup(self.rgw.close)
        self.rgw.make_bucket(BUCKET)
        self.etcd = etcd.Etcd(self.scratch, machines=list(machines.values()), inside=self.net.inside(OUTSIDE)).start()
        self.endpoints = [f"tcp://{m.address}:5000" for m in machines.values()]
        self.hubs = {name: Kept(self.scratch, machine, name, 5000, self.hub_settings(name, machine)) for name, machine in machines.items()}
        self.hubs["m1"].start().serves()
        self.hub = Everywhere(self, self.net.machine(OUTSIDE))
        self.hub.key = self.known_key("admin")
        self.nodes = {name: self.member(name, machine) for name, machine in zip(MEMBERS, machines.values())}
        known = lambda: self.etcd.ctl("get", "/coppice/farm", "--print-value-only").stdout
        wait_until("all machines know who is invited", lambda: all(name in known() for name in MEMBERS))
        for node in [*self.hubs.values(), *self.nodes.values()]:
            if node.daemon is None:
                node.start()
        wait_until("all offer themselves", lambda: set(MEMBERS) <= self.online())
        self.hub.record()
        self.recorder = Recorder(self.word, lambda: {n.daemon.pid: name for name, n in self.nodes.items()},
                                 self.scratch.file("out", "processes"))
        self.recorder.start()
        self.addCleanup(self.recorder.stop)

    def s3_settings(self):
        credentials = farm.write(self.scratch.file("credentials"),
                                 f"[default]\naws_access_key_id = {rgw.ACCESS_KEY}\naws_secret_access_key = {rgw.SECRET_KEY}\n")
        os.chmod(credentials, 0o600)
        return f'[s3]\nbucket = "{BUCKET}"\nendpoint = "{self.rgw.endpoint}"\ncredentials_file = "{credentials}"\n'

    def hub_settings(self, name, machine):
        quoted = lambda some: "[" + ", ".join(f'"{x}"' for x in some) + "]"
        return (f'node = "farm"\nhttp_url = "http://{machine.address}:8080"\n'
                f'[takeover]\nmachine = "{name}"\nendpoints = {quoted(self.endpoints)}\n'
                f'[ledger]\netcd = {quoted(self.etcd.endpoints)}\netcd_lease = "{LEDGER_LEASE_S} s"\n'
                + self.s3_settings() + chaos.LEASE + chaos.FAILURES)

    def known_key(self, role):
        """The file of a key that the hub lets in, wherever it runs."""
        first = self.hubs["m1"]
        key = self.key_of(first, role)[3]
        mine = farm.read(key).split('public_key = "')[1].split('"')[0]
        wait_until("the key is known everywhere", lambda: mine in self.etcd.ctl("get", "/coppice/farm", "--print-value-only").stdout)
        return key

    def member(self, name, machine):
        invited = self.ends_with(self.hubs["m1"].admin("invite", name), OK).out
        more = f'http_url = "http://{machine.address}:8081"\n'
        return Kept(self.scratch, machine, name, 5001, invited + more + self.MORE_OF.get(name, "") + self.s3_settings() + chaos.LEASE, self.JOBS)

    def where(self):
        """The name of the machine whose coppiced has the ledger open; empty if none has."""
        words = self.etcd.ctl("get", "/coppice/writer", "--print-value-only", check=False).stdout.split()
        return words[-1] if words else ""

    def kill_machine(self, name):
        """kill -9 for all that runs there."""
        at = MACHINES.index(name)
        for node in (self.hubs[name], self.nodes[MEMBERS[at]]):
            node.kill()
        self.etcd.kill(at)

    def start_machine(self, name):
        at = MACHINES.index(name)
        self.etcd.start_member(at)
        for node in (self.hubs[name], self.nodes[MEMBERS[at]]):
            node.start()

    def outputs_are_right(self, client, *answers, told=()):
        return super().outputs_are_right(client, *answers, told=["--etcd", os.path.join(self.hub.state, "etcd.json"), *told])
