#include "actors/settings.hpp"

#include "messages/utf8.hpp"
#include "runtime/settings.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace coppice;
using fuzz::must;

namespace {

struct one {
  std::string text;
  COPPICE_STRUCT(one, 1, text)
};

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto text = fuzz::text_of(bytes, size);
  const auto read = rt::from_toml<actors::node_settings>(text, "node.toml");
  if (!read) must(read.error().what.find("node.toml") != std::string::npos, "what is refused names its file");

  const auto quoted = rt::from_toml<one>("text = " + rt::toml_quoted(text) + "\n", "one.toml");
  must(!is_printable(text) || quoted.has_value(), "a quoted text can be read");
  must(!quoted || quoted->text == text, "and is the same");
  return 0;
}
