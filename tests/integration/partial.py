"""Outputs that are built and cannot be delivered are kept, whoever dies meanwhile (INV-12)."""

import fnmatch
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import farm
from farm import OK, wait_until


class Partial(farm.TestCase):
    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_a_store_that_refuses_costs_no_second_build_even_if_worker_uploader_and_pool_die(self):
        drv, = self.instantiate('step "slow" "sleep 2; date +%s%N > $out"')
        node = self.new_farm()
        client = node.build(drv, start=True)
        self.builders(node)
        # temporary files on another file system: every put fails when it is renamed into place
        store = os.path.join(node.state, "cache", ".tmp")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", store], check=True)
        try:
            wait_until("the lock to be partial", lambda: "partial" in node.admin("locks").out, 60)
            for path in ("/work/workers/*", "/work/uploads/*", "/work/worker-pool"):
                # an upload that has failed is away for a moment
                wait_until(f"a kill of {path}", lambda: self.killed(node, path), 60)
        finally:
            subprocess.run(["umount", store], check=True)
        self.ends_with(client.end(120), OK)
        self.assertEqual(len([a for a in node.attempts() if a["result"] == "success"]), 1, node.attempts())
        wait_until("the journal to be empty", lambda: not os.listdir(os.path.join(node.state, "kept")), 30)

    def killed(self, node, pattern):
        """Whether any actor of these could be killed."""
        some = [path for path in node.actors() if fnmatch.fnmatchcase(path, "/*" + pattern)]
        return any(node.admin("kill", path).code == OK for path in some)

    def test_a_cancel_reaches_a_build_although_the_lock_manager_was_killed(self):
        drv, = self.instantiate('step "slow" "sleep 600; echo > $out"')
        node = self.new_farm()
        request = node.submit(drv)
        builders = self.builders(node)
        self.assertTrue(self.killed(node, "/lock/lock-manager"))
        self.ends_with(node.coppice("cancel", request), OK)
        self.builders_gone(builders, 30)
        self.still_serves(node)


if __name__ == "__main__":
    farm.main()
