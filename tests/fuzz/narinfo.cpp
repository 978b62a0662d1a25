#include "nix/narinfo.hpp"

#include "tests/fuzz/fuzz.hpp"

using namespace coppice;
using fuzz::must;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto info = nix::parse_narinfo(fuzz::text_of(bytes, size));
  if (!info) {
    must(!info.error().what.empty(), "what is refused is refused with a reason");
    return 0;
  }
  const auto printed = nix::print_narinfo(*info);
  const auto again = nix::parse_narinfo(printed);
  must(again.has_value(), "what is printed can be read");
  must(*again == *info, "and means the same");
  must(nix::print_narinfo(*again) == printed, "and is printed as it was");
  must(again->fingerprint() == info->fingerprint(), "and is signed alike");
  const auto by_content = nix::content_address_matches(*info);
  must(!by_content || !*by_content || !info->ca.empty(), "nothing matches a content address that is not stated");
  return 0;
}
