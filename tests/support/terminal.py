"""Programs on terminals of their own."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios

import farm
from screen import Screen


class Terminal:
    """A program on a terminal of its own, and what that shows."""

    def __init__(self, argv, env, width, height):
        self.screen = Screen(width, height)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.master, slave = pty.openpty()
        self._tell_size()
        self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
        os.close(slave)

    def _tell_size(self):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", self.screen.height, self.screen.width, 0, 0))

    def resize(self, width, height):
        self.read()
        self.screen.resize(width, height)
        self._tell_size()

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the program has ended
                return
            if not data:
                return
            self.screen.feed(self.decoder.decode(data))

    def shows(self, pattern):
        """Waits for a screen that has it, and gives its lines."""
        def look():
            self.read()
            return re.search(pattern, "\n".join(self.screen.lines()), re.M) and self.screen.lines()
        return farm.wait_until(f"the terminal shows {pattern}", look)

    def end(self):
        code = farm.wait_until("the client has ended", lambda: self.read() or (self.process.poll() is not None and [self.process.returncode]))[0]
        self.read()
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
