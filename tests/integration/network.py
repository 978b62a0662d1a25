"""The network of tests with several machines does what it says, shown by plain TCP."""

import os
import select
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import wait_until
from net import Network

SUPPORT = os.path.join(farm.ROOT, "tests/support")


def readable(s):
    return bool(select.select([s], [], [], 0)[0])


def arrives(s, text):
    wait_until(f"{text} arrives", lambda: readable(s), 30)
    got = s.recv(100)
    assert got == text, got


class Cables(unittest.TestCase):
    def setUp(self):
        self.net = Network(3)
        self.addCleanup(self.net.close)

    def listening(self, who):
        server = self.net.call(who, lambda: socket.create_server((self.net.address(who), 0)))
        self.addCleanup(server.close)
        return server

    def calling(self, who, server):
        """A connection from that machine that is being made."""
        def call():
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(server.getsockname())
            return s

        s = self.net.call(who, call)
        self.addCleanup(s.close)
        return s

    def connected(self, a, b):
        """Both ends of a connection that a made to b."""
        server = self.listening(b)
        mine = self.calling(a, server)
        theirs, (address, _) = server.accept()
        self.addCleanup(theirs.close)
        self.assertEqual(address, self.net.address(a))
        return mine, theirs

    def loses(self, receiver, act):
        """Acts, and waits until a cut has swallowed what that sent."""
        before = self.net.lost(receiver)
        act()
        wait_until("a packet is lost", lambda: self.net.lost(receiver) > before, 30)

    def test_machines_reach_each_other_and_nobody_else_reaches_them(self):
        for a, b in ((1, 2), (2, 3), (3, 1)):
            mine, theirs = self.connected(a, b)
            mine.send(b"hello")
            arrives(theirs, b"hello")
        outside = socket.socket()
        self.addCleanup(outside.close)
        outside.settimeout(0.2)
        with self.assertRaises(OSError):
            outside.connect(self.listening(1).getsockname())

    def test_a_cut_swallows_both_ways_until_it_is_healed_and_the_third_machine_notices_nothing(self):
        one, two = self.connected(1, 2)
        self.net.cut(1, 2)
        self.loses(2, lambda: one.send(b"from 1"))
        self.loses(1, lambda: two.send(b"from 2"))
        server = self.listening(2)
        calling = []
        self.loses(2, lambda: calling.append(self.calling(1, server)))
        self.assertEqual([readable(s) for s in (one, two, server)], [False] * 3)
        for a, b in ((1, 3), (3, 2)):
            mine, theirs = self.connected(a, b)
            mine.send(b"around")
            arrives(theirs, b"around")
        self.net.heal(1, 2)
        arrives(two, b"from 1")
        arrives(one, b"from 2")
        wait_until("the call is answered", lambda: readable(server), 30)

    def test_a_one_way_cut_swallows_one_way(self):
        one, two = self.connected(1, 2)
        self.net.cut_one_way(1, 2)
        self.loses(2, lambda: one.send(b"lost"))
        two.send(b"heard")
        arrives(one, b"heard")
        self.assertFalse(readable(two))
        self.net.heal(2, 1)
        arrives(two, b"lost")

    def test_a_port_that_is_cut_off_is_silent_for_one_machine_and_all_else_is_heard(self):
        one, two = self.connected(1, 2)
        port = two.getsockname()[1]
        self.net.cut(1, 2, port)
        self.loses(2, lambda: one.send(b"from 1"))
        self.loses(1, lambda: two.send(b"from 2"))
        for a, b in ((1, 2), (2, 1), (3, 2)):
            mine, theirs = self.connected(a, b)
            mine.send(b"around")
            arrives(theirs, b"around")
        self.assertEqual([readable(one), readable(two)], [False, False])
        self.net.heal(2, 1)
        arrives(two, b"from 1")
        arrives(one, b"from 2")

    def test_who_is_unplugged_is_cut_off_from_everybody_and_the_others_are_not(self):
        to_two, two = self.connected(1, 2)
        to_three, three = self.connected(1, 3)
        others = self.connected(2, 3)
        self.net.unplug(1)
        before = self.net.sent(1)
        to_two.send(b"a")
        to_three.send(b"b")
        wait_until("it has sent", lambda: self.net.sent(1) >= before + 2, 30)
        others[0].send(b"c")
        arrives(others[1], b"c")
        self.assertEqual([readable(two), readable(three)], [False, False])
        self.net.plug_in(1)
        arrives(two, b"a")
        arrives(three, b"b")

    def test_a_slow_machine_sends_no_faster_than_it_is_allowed(self):
        mine, theirs = self.connected(1, 2)
        self.net.slow(1, "8mbit")
        begun, left = time.monotonic(), 1 << 20
        theirs.settimeout(30)
        mine.setblocking(True)
        sender = subprocess.Popen([sys.executable, "-c", f"import sys; sys.stdout.buffer.write(bytes({left}))"], stdout=mine)
        while left > 0:
            left -= len(theirs.recv(1 << 16))
        self.assertGreater(time.monotonic() - begun, 0.9)
        self.assertEqual(sender.wait(), 0)
        self.net.slow(1, None)

    def test_programs_run_on_a_machine_and_keep_what_they_have_of_the_host(self):
        script = "ip -4 -o addr show eth0; ls /sys/fs/cgroup"
        done = subprocess.run([*self.net.inside(2), "sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
        self.assertIn("10.77.0.2/24", done.stdout)
        self.assertEqual(sorted(done.stdout.splitlines()[1:]), sorted(os.listdir("/sys/fs/cgroup")))


class Ends(unittest.TestCase):
    def python(self, script, *before):
        head = f"import sys; sys.path.insert(0, {SUPPORT!r}); import farm, net, subprocess, time\n"
        return subprocess.Popen([*before, sys.executable, "-c", head + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_nothing_is_left_of_a_test_that_is_killed(self):
        word = farm.new_word()
        test = self.python(f'''
n = net.Network(2)
subprocess.Popen(farm.END_WITH_PARENT + n.inside(1) + [sys.executable, "-c", "import time; time.sleep(1000)", "{word}"])
print(*(h.pid for h in n.holders.values()), flush=True)
time.sleep(1000)''')
        holders = {int(pid) for pid in test.stdout.readline().split()}
        wait_until("a program runs on a machine", lambda: farm.with_word(word), 30)
        self.assertEqual(len(holders & set(farm.processes())), 3)
        test.kill()
        test.communicate()
        wait_until("all of it ends", lambda: not holders & set(farm.processes()) and not farm.with_word(word), 30)

    def test_where_no_namespaces_can_be_made_tests_fail_and_say_why_unless_they_are_left_out(self):
        for left_out, ends in (("", "AssertionError: cannot make network namespaces: .*not permitted.*COPPICE_NO_NETNS"),
                               ("1", "SkipTest: cannot make network namespaces: .*not permitted")):
            test = self.python("net.Network(1)", "env", f"COPPICE_NO_NETNS={left_out}", "setpriv", "--bounding-set=-all",
                               "--inh-caps=-all", "--")
            self.assertRegex(test.communicate()[1].splitlines()[-1], ends)


if __name__ == "__main__":
    unittest.main(verbosity=2)
