"""The disk of the hub is full, under the store or under the ledger, while a build runs: nothing wrong is said, and when
there is room again, the farm goes on by itself."""

import errno
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import wait_until
from farm import OK


class Ballast:
    """Fills a file system to the last byte."""

    def __init__(self, directory):
        self.file = os.path.join(directory, "ballast")

    def fill(self):
        with open(self.file, "ab", buffering=0) as f:
            for size in (1 << 20, 4096, 1):
                try:
                    while f.write(b"x" * size) == size:
                        pass
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise

    def drop(self):
        os.remove(self.file)


@unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
class FullStore(chaos.Chaos):
    def before_hub(self):
        self.store = self.scratch.file("hub/cache")
        os.makedirs(self.store)
        os.chmod(self.scratch.file("hub"), 0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", self.store], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.store], check=True)

    def test_what_a_full_store_does_not_take_is_kept_and_uploaded_when_there_is_room(self):
        client, holder, _ = self.begin()
        ballast = Ballast(self.store)
        ballast.fill()
        self.end_sleepers()
        wait_until("held is kept", lambda: ("held", holder) in self.waits_for_the_store())
        ballast.fill()  # what was given up has left room
        self.assertTrue(client.running())
        ballast.drop()
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(holder, "success")])
        self.outputs_are_right(client)


@unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
class FullLedger(chaos.Chaos):
    def before_hub(self):
        self.state, cache = self.scratch.file("hub"), self.scratch.file("hub-cache")
        for directory in (self.state, cache):
            os.mkdir(directory, 0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", self.state], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.state], check=True)
        os.mkdir(os.path.join(self.state, "cache"))
        subprocess.run(["mount", "--bind", cache, os.path.join(self.state, "cache")], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", os.path.join(self.state, "cache")], check=True)

    def test_a_ledger_that_cannot_write_says_nothing_wrong_and_goes_on_when_it_can(self):
        client, holder, _ = self.begin()
        ballast = Ballast(self.state)
        ballast.fill()
        self.end_sleepers()
        other, = self.instantiate('step "other" "echo > $out"', name="other", word=farm.new_word())
        asked = self.hub.start_coppice("submit", other)
        wait_until("the ledger cannot write", lambda: "full" in self.hub.daemon.err() or not self.hub.alive())
        wait_until("the request is not accepted", lambda: not asked.running() or not self.hub.alive())
        self.assertEqual(asked.out(), "")  # it was not accepted
        if not self.hub.alive():  # its init system starts it again and again
            self.assertEqual(self.hub.daemon.end().code, farm.GAVE_UP)
            with self.assertRaisesRegex(AssertionError, "No space left on device"):
                self.hub.start()
        ballast.drop()
        if not self.hub.alive():
            self.hub.start()
        if asked.running():  # it has waited for the hub to come back
            self.ends_with(asked.end(), OK)
        self.let_go(client)
        self.assertIn((holder, "success"), self.attempts_of("held"))
        self.outputs_are_right(client)


if __name__ == "__main__":
    farm.main()
