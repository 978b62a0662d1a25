#include "messages/utf8.hpp"

#include <catch2/catch.hpp>

using namespace coppice;

TEST_CASE("printable means UTF-8 without control characters") {
  for (const char* s : {"", "plain", "größe", "\xe2\x82\xac", "\xf0\x9f\x8c\xb3"})
    CHECK(is_printable(s));
  for (const char* s : {"\n", "\x7f", "\x1b[2J", "\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xc2\x85",
                        "\xf4\x90\x80\x80", "\x80"})
    CHECK_FALSE(is_printable(s));
  CHECK_FALSE(is_printable(std::string_view{"a\0b", 3}));
}

TEST_CASE("UTF-8 has control characters, too, but no overlong forms and no surrogates") {
  CHECK(is_utf8("a\n\x1b\xc2\x85"));
  for (const char* s : {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80"})
    CHECK_FALSE(is_utf8(s));
}

TEST_CASE("escape sequences and control characters never reach the terminal") {
  CHECK(cleaned("\033[31mred\033[0m \033]0;title\a\tx\x01\x7f") == "red  x");
  CHECK(cleaned("\033]8;;http://x\033\\link\033]8;;\033\\") == "link");
  CHECK(cleaned("a\r\nb\tc\bd") == "ab cd");
  CHECK(cleaned("c1 \xc2\x9b!") == "c1 !");
  CHECK(cleaned("a\u202eb\u2066c") == "abc");
}

TEST_CASE("an escape sequence that does not end hides no more than itself") {
  CHECK(cleaned("end\033") == "end");
  CHECK(cleaned("unfinished \033[3") == "unfinished ");
  CHECK(cleaned("\033[3gr\xc3\xbcn") == "r\xc3\xbcn");
  CHECK(cleaned("\033[\xc3\xbc") == "\xc3\xbc");
}

TEST_CASE("a byte that is no UTF-8 is shown as U+FFFD") {
  CHECK(cleaned("gr\xc3\xbcn \xe2\x82\xac") == "gr\xc3\xbcn \xe2\x82\xac");
  CHECK(cleaned("\xff\xc3(\xed\xa0\x80") == "\ufffd\ufffd(\ufffd\ufffd\ufffd");
}
