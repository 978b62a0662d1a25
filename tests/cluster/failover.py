"""A farm whose ledger is in etcd and whose store is in a bucket outlives the machine that ran it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import etcd
import farm
import rgw
from farm import OK

BUCKET = "farm"
GRAPH = '''let
  leaves = map (i: step "leaf-${toString i}" "echo ${toString i} > $out") [ 0 1 2 3 4 5 6 7 ];
  slow = step "slow" "cat ${toString leaves} > $out; sleep 4"; in
  step "top" "cat ${slow} > $out"'''
LEAVES = 8


class Failover(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.rgw = rgw.Rgw(self.scratch.file("ceph"))
        self.addCleanup(self.rgw.close)
        self.rgw.make_bucket(BUCKET)
        self.etcd = etcd.Etcd(self.scratch, members=3).start()
        credentials = farm.write(self.scratch.file("credentials"),
                                 f"[default]\naws_access_key_id = {rgw.ACCESS_KEY}\naws_secret_access_key = {rgw.SECRET_KEY}\n")
        os.chmod(credentials, 0o600)
        self.shared = f'''
            [s3]
            bucket = "{BUCKET}"
            endpoint = "{self.rgw.endpoint}"
            credentials_file = "{credentials}"
            [ledger]
            etcd = [{", ".join(f'"{e}"' for e in self.etcd.endpoints)}]
            [lease]
            ttl = "6 s"
            renew = "1 s"
            guard = "200 ms"
            [limits]
            kill_grace = "500 ms"
            '''

    def hub(self, name):
        return farm.Farm(self.scratch, state=self.scratch.file(name), settings=f'node = "{name}"\n{self.shared}')

    def start_as_init_does(self, node):
        """Again and again, until it serves; what it said before."""
        def serves():
            try:
                return node.start()
            except AssertionError as e:
                said.append(str(e))
                return None

        said = []
        farm.wait_until(f"{node.state} serves", serves)
        return said

    def test_a_second_machine_takes_over_with_what_was_asked_and_what_was_built(self):
        first, second = self.hub("first"), self.hub("second")
        first.start()
        request = first.submit(*self.instantiate(GRAPH))
        farm.wait_until("the slow one is being built", lambda: first.attempts_at("slow") == ["running"])
        first.kill()
        refusals = self.start_as_init_does(second)
        for said in refusals:
            self.assertIn("is open at the node first", said)
        done = self.ends_with(second.coppice("wait", request), OK)
        results = {}
        for a in second.attempts():
            results.setdefault(farm.drv_name(a["drv"]), []).append((a["node"], a["result"]))
        self.assertEqual({name: some for name, some in results.items() if name.startswith("leaf")},
                         {f"leaf-{i}": [("first", "success")] for i in range(LEAVES)})
        self.assertEqual([r for _, r in results["slow"]].count("success"), 1)
        self.assertEqual(results["top"], [("second", "success")])
        # what the lost machine had built is served by the other
        out = farm.base_name(done.out.split()[-1])
        self.assertEqual(second.narinfo(out)["StorePath"], "/nix/store/" + out)
        # and the lost one, should it come back, is kept out
        back = self.scratch.start(first.argv).end()
        self.assertIn("is open at the node second", back.err)


farm.main()
