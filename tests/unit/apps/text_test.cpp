#include "apps/common/text.hpp"

#include <catch2/catch.hpp>

using namespace coppice::app;
using namespace std::chrono_literals;

TEST_CASE("columns are counted by character, not by byte") {
  CHECK(columns("") == 0);
  CHECK(columns("zlib") == 4);
  CHECK(columns("grün") == 4);
  CHECK(columns("構築") == 4);
  CHECK(columns("e\xcc\x81") == 1);
  CHECK(columns("\xff\xfe") == 2);
}

TEST_CASE("a text is cut at the given width with an ellipsis") {
  CHECK(fitted("abc", 3) == "abc");
  CHECK(fitted("abcd", 3) == "ab…");
  CHECK(fitted("abcd", 1) == "…");
  CHECK(fitted("abcd", 0).empty());
  CHECK(fitted("構築中", 4) == "構…");
  for (std::size_t width = 0; width < 12; ++width)
    CHECK(columns(fitted("a構b築c中d…e", width)) <= width);
}

TEST_CASE("a padded text takes exactly its width") {
  CHECK(padded("ab", 4) == "ab  ");
  CHECK(padded("abcdef", 4) == "abc…");
  CHECK(columns(padded("構築", 3)) == 3);
}

TEST_CASE("durations have two units at most") {
  CHECK(duration_text(340ms) == "0.3 s");
  CHECK(duration_text(9'999ms) == "9.9 s");
  CHECK(duration_text(12'345ms) == "12 s");
  CHECK(duration_text(185s) == "3 m 05 s");
  CHECK(duration_text(7'380s) == "2 h 03 m");
  CHECK(duration_text(100h) == "4 d 04 h");
  CHECK(duration_text(-5ms) == "0.0 s");
}

TEST_CASE("sizes have one decimal") {
  CHECK(bytes_text(999) == "999 B");
  CHECK(bytes_text(1'400'000) == "1.4 MB");
  CHECK(bytes_text(999'999) == "1.0 MB");
}

TEST_CASE("a wall clock time is printed as UTC") {
  CHECK(utc_text(1'714'566'605'123) == "2024-05-01T12:30:05Z");
}

TEST_CASE("the last lines of a log are its end") {
  CHECK(last_lines("a\nb\nc\n", 2) == std::vector<std::string>{"b", "c"});
  CHECK(last_lines("a\nb", 5) == std::vector<std::string>{"a", "b"});
  CHECK(last_lines("", 5).empty());
  CHECK(last_lines("a\n\nb\n", 2) == std::vector<std::string>{"", "b"});
}

TEST_CASE("colours are used only if wanted") {
  CHECK(painted(colour::red, "no", true) == "\x1b[31mno\x1b[0m");
  CHECK(painted(colour::red, "no", false) == "no");
}

TEST_CASE("a table's columns are aligned and its lines fit") {
  const auto lines = table({{"ID", "STATE"}, {"grün", "open"}, {"b", "a rather long text"}}, 16);
  CHECK(lines == std::vector<std::string>{"ID    STATE", "grün  open", "b     a rather …"});
}

TEST_CASE("names are encoded for URLs") {
  CHECK(percent_encoded("a/b c+?%.drv") == "a/b%20c%2B%3F%25.drv");
}

TEST_CASE("combining characters, scripts, emoji and what is invisible take the columns that terminals give them") {
  CHECK(columns("नु") == 1);              // a vowel sign beside its consonant
  CHECK(columns("\u0e01\u0e34") == 1);    // Thai
  CHECK(columns("\u1112\u1161\u11ab") == 2); // one Hangul syllable of three parts
  CHECK(columns("🚀") == 2);
  CHECK(columns("a\u200db\ufe0f") == 2);
  CHECK(columns("├┄ ▸ ◦ ✗ · …") == 12);
}

TEST_CASE("what is guessed is told roughly") {
  CHECK(rough_text(0ms) == "1 s");
  CHECK(rough_text(4'200ms) == "5 s");
  CHECK(rough_text(41s) == "45 s");
  CHECK(rough_text(100s) == "2 m");
  CHECK(rough_text(7'900s) == "2 h 10 m");
}

TEST_CASE("a log is cleaned alike however it is cut into pieces") {
  const std::string log = "a\tb\r\n\x1b[31mred\x1b[0m\x1b]0;title\x07 e\u0301構\n50%\r100%\nbad \xe6\xa7 \x1b[1;2\nnext \x1b]8;;x\x1b\\y\x00\x07\n";
  const std::string clean = "a\tb\nred e\u0301構\n50%\n100%\nbad \ufffd\ufffd \nnext y";
  for (std::size_t size = 1; size <= log.size(); ++size) {
    line_cleaner cleaner;
    std::string out;
    for (std::size_t i = 0; i < log.size(); i += size)
      out += cleaner.feed(std::string_view(log).substr(i, size));
    CHECK(out == clean);
  }
}

TEST_CASE("an escape sequence that never ends hides no more than its line") {
  line_cleaner cleaner;
  CHECK(cleaner.feed("\x1b]0;" + std::string(100'000, 'x')).empty());
  CHECK(cleaner.feed("\nnext") == "\nnext");
}

TEST_CASE("a table for a narrow terminal does without the columns that can be spared most") {
  const std::vector<std::vector<std::string>> rows{{"NAME", "TIME", "ID"}, {"hello", "12 s", "0123456789"}};
  CHECK(narrowed(rows, {0, 1, 2}, 0) == rows);
  CHECK(narrowed(rows, {0, 1, 2}, 23) == rows);
  CHECK(narrowed(rows, {0, 1, 2}, 22) == std::vector<std::vector<std::string>>{{"NAME", "TIME"}, {"hello", "12 s"}});
  CHECK(narrowed(rows, {0, 2, 1}, 22) == std::vector<std::vector<std::string>>{{"NAME", "ID"}, {"hello", "0123456789"}});
  CHECK(narrowed(rows, {0, 1, 2}, 5) == std::vector<std::vector<std::string>>{{"NAME"}, {"hello"}});
  CHECK(narrowed(rows, {0, 0, 2}, 1) == std::vector<std::vector<std::string>>{{"NAME", "TIME"}, {"hello", "12 s"}});
  const std::vector<std::vector<std::string>> cut{{"ID", "WHY"}, {"7", std::string(50, 'x')}};
  CHECK(narrowed(cut, {0, 1}, 24) == cut); // the last one may be cut
  CHECK(narrowed(cut, {0, 1}, 23).front().size() == 1);
}
