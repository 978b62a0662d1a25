"""A real etcd of one member or three, with a data directory, ports and a cluster token that no other test has; on this
machine, or each member on one of a network (net.py)."""

import json
import os
import secrets
import shutil
import signal
import subprocess

import farm

START_S = 60


class Etcd:
    def __init__(self, scratch, members=1, options=(), tls=None, machines=(), inside=()):
        """`tls`: a directory made by certificates(); then clients need a certificate, too. `machines`: of the members;
        `inside`: what enters the machine from which we ask."""
        self.scratch, self.options, self.tls = scratch, list(options), tls
        self.inside = inside
        self.token = secrets.token_hex(8)
        self.scheme = "https" if tls else "http"
        self.hosts = [m.address for m in machines] or ["127.0.0.1"] * members
        self.insides = [m.inside for m in machines] or [()] * members
        self.ports = [(farm.free_port(), farm.free_port()) for _ in self.hosts]
        self.members = [None] * len(self.hosts)
        self.paused = set()
        self.generation = ["new"] * len(self.hosts)

    @property
    def endpoints(self):
        return [f"{self.scheme}://{host}:{client}" for host, (client, _) in zip(self.hosts, self.ports)]

    def data_dir(self, i):
        return self.scratch.file(f"etcd-{self.token}-{i}")

    def start_member(self, i):
        peers = [f"http://{host}:{peer}" for host, (_, peer) in zip(self.hosts, self.ports)]
        cluster = ",".join(f"m{k}={url}" for k, url in enumerate(peers))
        argv = ["etcd", "--name", f"m{i}", "--data-dir", self.data_dir(i),
                "--listen-client-urls", self.endpoints[i], "--advertise-client-urls", self.endpoints[i],
                "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
                "--initial-cluster", cluster, "--initial-cluster-token", self.token,
                "--initial-cluster-state", self.generation[i], "--logger", "zap", "--log-level", "error", *self.options]
        if self.tls:
            argv += ["--cert-file", f"{self.tls}/server.pem", "--key-file", f"{self.tls}/server.key",
                     "--client-cert-auth", "--trusted-ca-file", f"{self.tls}/ca.pem"]
        self.members[i] = self.scratch.start(argv, inside=self.insides[i])
        self.generation[i] = "existing"
        return self.members[i]

    def start(self):
        for i in range(len(self.ports)):
            self.start_member(i)
        return self.ready()

    def ready(self):
        """Waits until it has a leader and serves."""
        farm.wait_until("etcd serves", lambda: self.ctl("get", "no-such-key", check=False).returncode == 0, START_S)
        return self

    def kill(self, i=0):
        self.members[i].kill()

    def pause(self, i):
        """SIGSTOP: connections stay, and nothing is answered."""
        self.members[i].send(signal.SIGSTOP)
        self.paused.add(i)

    def resume(self, i):
        self.members[i].send(signal.SIGCONT)
        self.paused.discard(i)

    def back_up(self):
        """A file with all that it holds now."""
        file = self.scratch.file(f"etcd-{self.token}-{secrets.token_hex(4)}.db")
        self.ctl("snapshot", "save", file, endpoint=self.endpoints[0])
        return file

    def restore(self, file):
        """What back_up() wrote is all that its one member holds, as soon as it is started again; now it is dead."""
        self.kill()
        shutil.rmtree(self.data_dir(0))
        peer = f"http://{self.hosts[0]}:{self.ports[0][1]}"
        self.ctl("snapshot", "restore", file, "--name", "m0", "--data-dir", self.data_dir(0), "--initial-cluster", f"m0={peer}",
                 "--initial-cluster-token", self.token, "--initial-advertise-peer-urls", peer)

    def status(self):
        """{the number of a member: what it says of itself}"""
        rows = json.loads(self.ctl("endpoint", "status", "-w", "json").stdout)
        return {self.endpoints.index(row["Endpoint"]): row["Status"] for row in rows}

    def leader(self):
        """The number of the member that leads, or None; one that stood still may take itself for that, in an earlier term."""
        leading = {row["raftTerm"]: i for i, row in self.status().items() if row.get("leader") == row["header"]["member_id"]}
        return leading[max(leading)] if leading else None

    def make_leader(self, i):
        def leads():
            now = self.leader()
            if now not in (None, i):
                self.ctl("move-leader", f"{self.status()[i]['header']['member_id']:x}", endpoint=self.endpoints[now], check=False)
            return now == i

        farm.wait_until(f"member {i} leads", leads)

    def ctl(self, *words, check=True, user=None, endpoint=None):
        """etcdctl; it asks one member of those that live, and do not stand still."""
        live = [e for i, (e, m) in enumerate(zip(self.endpoints, self.members)) if m and m.running() and i not in self.paused]
        argv = ["etcdctl", "--endpoints", endpoint or ",".join(live), "--command-timeout", "5s"]
        if self.tls:
            argv += ["--cacert", f"{self.tls}/ca.pem", "--cert", f"{self.tls}/client.pem", "--key", f"{self.tls}/client.key"]
        if user:
            argv += ["--user", user]
        env = {**self.scratch.env, "ETCDCTL_API": "3"}
        argv = [*self.inside, *argv]
        return subprocess.run(argv + list(words), check=check, env=env, capture_output=True, text=True, errors="replace", timeout=60)

    def revision(self):
        return json.loads(self.ctl("get", "no-such-key", "-w", "json").stdout)["header"]["revision"]


def certificates(scratch):
    """A directory with a CA, a server's certificate for 127.0.0.1 and a client's with the CN 'farm'."""
    where = scratch.file("tls")
    os.mkdir(where)

    def run(*argv):
        subprocess.run(argv, check=True, cwd=where, capture_output=True)

    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=test CA")
    for name, cn in (("server", "etcd"), ("client", "farm")):
        farm.write(f"{where}/{name}.ext", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={cn}")
        run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")
    return where
