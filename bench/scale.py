#!/usr/bin/env python3
"""scale.py [--steps N] [--idle SECONDS] [--json] -- what a farm costs its etcd, its S3 server, its hub and its network, for each
machine that does nothing and for each derivation that is built: the figures behind docs/scale.md. Three machines, each a network
namespace with an etcd member, a hub or one that stands by, and a member; a real S3 server on a fourth. Needs root."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "support"))
import chaos
import farm
import moving
from farm import OK

COUNTED = ("etcd_mvcc_txn_total", "etcd_mvcc_put_total", "etcd_mvcc_db_total_size_in_use_in_bytes")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Costs(moving.MovingFarm):
    options, rows = None, []

    @classmethod
    def built_by_stock_nix(cls, scratch, nix):
        return None  # nothing is compared

    def say(self, name, value, unit):
        self.rows.append({"name": name, "value": value, "unit": unit})

    def etcd_counts(self):
        """Of the leader, whose counters see every write once."""
        url = self.etcd.endpoints[self.etcd.leader()] + "/metrics"
        text = self.hub.machine.call(lambda: urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60).read().decode())
        found = {m[1]: float(m[2]) for m in re.finditer(r"^(\w+) ([0-9.e+]+)$", text, re.M)}
        return {name: found[name] for name in COUNTED if name in found}

    def s3_counts(self):
        socket, = [f for f in os.listdir(os.path.join(self.rgw.dir, "run")) if "client.rgw" in f and f.endswith(".asok")]
        done = subprocess.run(["ceph", "--admin-daemon", os.path.join(self.rgw.dir, "run", socket), "perf", "dump"], check=True,
                              capture_output=True, text=True, env=self.rgw.env)
        rgw = next(v for k, v in json.loads(done.stdout).items() if k.startswith("rgw") and "req" in v)
        return {k: rgw[k] for k in ("req", "get", "put", "put_b")}

    def hub_cpu_s(self):
        """User and system time of the hub's process."""
        pid, = self.hubs[self.where()].processes()
        fields = farm.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def heard(self):
        """Packets and bytes that members have sent to the hub's port."""
        text = self.net.run(1, "nft", "list", "counter", "inet", "cut", "hub")
        return [int(n) for n in re.findall(r"(?:packets|bytes) (\d+)", text)]

    def idle(self, seconds):
        """Seconds of the hub's CPU, and packets and bytes of members, in each second in which nothing is done."""
        cpu, heard = self.hub_cpu_s(), self.heard()
        time.sleep(seconds)
        return [(self.hub_cpu_s() - cpu) / seconds, *((now - then) / seconds for now, then in zip(self.heard(), heard))]

    def test_costs(self):
        steps, idle = self.options.steps, self.options.idle
        self.net.run(1, "nft", "add", "counter", "inet", "cut", "hub")
        self.net.run(1, "nft", "insert", "rule", "inet", "cut", "in", "tcp", "dport", "5000", "counter", "name", "hub")
        time.sleep(3)  # whatever setting up has set off

        etcd = self.etcd_counts()
        all_members, packets, size = self.idle(idle)
        self.say("idle_etcd_txns", (self.etcd_counts()[COUNTED[0]] - etcd[COUNTED[0]]) / idle, "transactions a second in all")
        self.say("idle_member_bytes", size / len(self.nodes), "bytes a second from each member to the hub, as packets")
        self.say("idle_member_packets", packets / len(self.nodes), "packets a second from each member")
        gone = [self.nodes[name] for name in moving.MEMBERS[1:]]
        for node in gone:
            self.ends_with(node.stop(), OK)
        one_member, _, _ = self.idle(idle)
        for node in gone:
            node.start()
        farm.wait_until("all are back", lambda: set(moving.MEMBERS) <= self.online())
        each_member = (all_members - one_member) / len(gone)
        self.say("idle_hub_cpu_member", 1e6 * each_member, "us of the hub's CPU a second for each member")
        self.say("idle_hub_cpu", 1e6 * (one_member - each_member), "us of the hub's CPU a second besides")

        drvs = self.instantiate(f'builtins.genList (i: step "s-${{toString i}}" "echo ${{toString i}} > $out") {steps}')
        etcd, s3, cpu, heard = self.etcd_counts(), self.s3_counts(), self.hub_cpu_s(), self.heard()
        begun = time.monotonic()
        self.ends_with(self.hub.build(*drvs), OK)
        self.say("built", steps / (time.monotonic() - begun), "derivations a second")
        now, s3_now = self.etcd_counts(), self.s3_counts()
        each = lambda after, before: (after - before) / steps
        self.say("etcd_txns", each(now[COUNTED[0]], etcd[COUNTED[0]]), "transactions for each derivation")
        self.say("etcd_puts", each(now[COUNTED[1]], etcd[COUNTED[1]]), "keys written")
        self.say("etcd_bytes", each(now[COUNTED[2]], etcd[COUNTED[2]]), "bytes that etcd's database grew by, history included")
        for key, what in (("req", "requests to S3"), ("put", "of them PUT"), ("get", "of them GET")):
            self.say("s3_" + key, each(s3_now[key], s3[key]), what)
        self.say("hub_cpu", 1e6 * each(self.hub_cpu_s(), cpu), "us of the hub's CPU")
        self.say("hub_bytes", each(self.heard()[1], heard[1]), "bytes from members to the hub, as packets")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="derivations to build")
    parser.add_argument("--idle", type=int, default=30, help="seconds in which nothing is done")
    parser.add_argument("--json", action="store_true")
    Costs.options = parser.parse_args()
    sys.argv[1:] = []
    result = farm.unittest.TextTestRunner(stream=sys.stderr).run(farm.unittest.defaultTestLoader.loadTestsFromTestCase(Costs))
    for row in Costs.rows:
        print(json.dumps(row) if Costs.options.json else f"{row['name']:20} {row['value']:12.2f}  {row['unit']}")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
