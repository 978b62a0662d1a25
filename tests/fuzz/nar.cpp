#include "nix/nar.hpp"

#include "tests/fuzz/fuzz.hpp"

#include <algorithm>

using namespace coppice;
using fuzz::must;

namespace {

/// Writes what it is told of.
class copy final : public nix::nar_visitor {
public:
  nix::expected<void> begin_directory() override {
    return done([&] { to_.begin_directory(); });
  }
  nix::expected<void> entry(std::string_view name) override {
    return done([&] { to_.entry(name); });
  }
  nix::expected<void> end_directory() override {
    return done([&] { to_.end_directory(); });
  }
  nix::expected<void> regular(bool executable, std::uint64_t size) override {
    return done([&] { to_.regular(executable, size); });
  }
  nix::expected<void> contents(std::string_view chunk) override {
    return done([&] { to_.contents(chunk); });
  }
  nix::expected<void> symlink(std::string_view target) override {
    return done([&] { to_.symlink(target); });
  }
  nix::expected<void> end() override {
    return done([&] { to_.finish(); });
  }

  std::string bytes;

private:
  template <class Work>
  static nix::expected<void> done(Work work) {
    work(); // throws if the reader tells of what is no NAR
    return {};
  }
  nix::nar_writer to_{[this](std::string_view more) { bytes += more; }};
};

/// How reading ended: the error's words, or nothing.
std::string outcome(const nix::expected<void>& e) {
  return e ? std::string{} : e.error().what;
}

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto nar = fuzz::text_of(data, size);
  copy whole;
  const auto read = nix::read_nar(nar, whole);
  if (read) must(whole.bytes == nar, "a NAR that is read and written is the same");

  const auto piece = size == 0 ? 1 : 1 + data[size / 2] % 61u;
  copy pieces;
  nix::nar_reader reader(pieces);
  nix::expected<void> fed;
  for (std::size_t at = 0; fed && at < size; at += piece)
    fed = reader.feed(nar.substr(at, piece));
  if (fed) fed = reader.finish();
  must(outcome(fed) == outcome(read), "pieces are read as the whole is");
  must(!fed || pieces.bytes == nar, "and written the same");
  return 0;
}
