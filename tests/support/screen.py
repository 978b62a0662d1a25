"""What a terminal shows: the part of ECMA-48 that the client writes, with wrapping and wide characters."""

import re
import unicodedata


class Screen:
    """Rows that scrolled away are in `gone`; `wraps` counts lines that did not fit into the width, `draws` how often
    something was wiped."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.rows, self.gone = [[]], []  # of cells; the second cell of a wide character is ""
        self.row, self.column, self.pending, self.escapes = 0, 0, "", set()
        self.wraps = self.draws = 0

    def resize(self, width, height):
        """As terminals do that do not wrap anew: what does not fit is cut."""
        self.rows = [row[:width] for row in self.rows]
        self.width, self.height = width, height
        while len(self.rows) > height:
            self.gone.append(self.rows.pop(0))
            self.row = max(self.row - 1, 0)
        self.column = min(self.column, width)

    def lines(self):
        return ["".join(row).rstrip() for row in self.gone + self.rows]

    def _down(self):
        self.row += 1
        if self.row == self.height:
            self.gone.append(self.rows.pop(0))
            self.row -= 1
        if self.row == len(self.rows):
            self.rows.append([])

    def _put(self, c):
        if unicodedata.category(c) in ("Mn", "Me", "Cf"):
            if self.column > 0:
                self.rows[self.row][self.column - 1] += c
            return
        wide = unicodedata.east_asian_width(c) in "WF"
        if self.column + 1 + wide > self.width:
            self.wraps += 1
            self._down()
            self.column = 0
        row = self.rows[self.row]
        row.extend(" " * (self.column - len(row)))
        row[self.column:self.column + 1 + wide] = [c] + [""] * wide
        self.column += 1 + wide

    def feed(self, text):
        text = self.pending + text
        self.pending = ""
        while text:
            if text[0] == "\x1b":
                found = re.match("\x1b\\[([0-9;]*)([A-Za-z])", text)
                if not found:
                    if len(text) > 20:
                        raise AssertionError(f"an escape sequence that is not known: {text[:20]!r}")
                    self.pending = text
                    return
                text = text[found.end():]
                self._escape(found.group(1), found.group(2))
                continue
            c, text = text[0], text[1:]
            if c == "\n":
                self._down()
            elif c == "\r":
                self.column = 0
            elif ord(c) < 32 or 127 <= ord(c) < 160:
                raise AssertionError(f"a control character reaches the terminal: {c!r}")
            else:
                self._put(c)

    def _escape(self, number, what):
        self.escapes.add(what)
        if what == "A":
            self.row = max(self.row - int(number or 1), 0)
        elif what == "J":
            self.draws += 1
            del self.rows[self.row][self.column:]
            del self.rows[self.row + 1:]
        elif what != "m":
            raise AssertionError(f"an escape sequence that is not known: {number}{what}")
