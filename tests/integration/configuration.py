"""The documented configuration boots, and what it says holds."""

import os
import re
import shutil
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import farm
from farm import OK

DOCUMENTED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "config", "node.toml")


class Configuration(farm.TestCase):
    def test_a_node_boots_from_the_documented_configuration_and_builds(self):
        node = self.new_farm(settings=farm.read(DOCUMENTED))
        drv, = self.instantiate('step "one" "echo > $out"')
        self.ends_with(node.build(drv), OK)

    def test_a_limit_of_the_configuration_ends_a_build_in_its_own_class(self):
        node = self.new_farm(settings='[limits]\nmax_silent = "1 s"\n')
        drv, = self.instantiate('step "silent" "sleep 600; echo > $out"')
        self.ends_with(node.build(drv), farm.FAILED)
        self.assertEqual([a["result"] for a in node.attempts()], ["silent"])


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
class Unit(farm.TestCase):
    # What build sandboxes need, these take away.
    UNBEARABLE = {"RestrictNamespaces", "ProtectProc", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectControlGroups",
                  "ProtectHostname", "PrivateUsers", "RestrictSUIDSGID", "SystemCallFilter", "MemoryDenyWriteExecute"}

    def test_systemd_takes_the_unit_file_which_starts_again_what_gave_up_until_somebody_has_to_look(self):
        text = farm.read(os.path.join(os.path.dirname(DOCUMENTED), "coppiced.service"))
        says = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        installed = text.replace("/usr/bin/coppiced", os.path.join(farm.BIN, "coppiced")).replace(says["Documentation"], "man:true(1)")
        unit = farm.write(self.scratch.file("coppiced.service"), installed)
        done = self.ends_with(self.scratch.run(["systemd-analyze", "verify", "--man=no", unit]), 0)
        self.assertEqual(done.err, "")
        self.assertEqual(says["Restart"], "on-failure")
        self.assertNotIn(str(farm.GAVE_UP), says["RestartPreventExitStatus"].split())
        self.assertIn(str(farm.LOCKED), says["RestartPreventExitStatus"].split())
        self.assertLess(int(says["StartLimitBurst"]) * int(says["RestartSec"]), int(says["StartLimitIntervalSec"]))
        self.assertEqual(says["KillMode"], "mixed")
        self.assertEqual(self.UNBEARABLE & set(says), set())


if __name__ == "__main__":
    farm.main()
