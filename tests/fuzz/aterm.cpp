#include "nix/derivation.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace coppice;
using fuzz::must;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto drv = nix::parse_derivation(fuzz::text_of(bytes, size), "fuzz");
  if (!drv) {
    must(!drv.error().what.empty(), "what is refused is refused with a reason");
    return 0;
  }
  const auto printed = nix::print_derivation(*drv);
  const auto again = nix::parse_derivation(printed, "fuzz");
  must(again.has_value(), "what is printed can be read");
  must(*again == *drv, "and means the same");
  must(nix::print_derivation(*again) == printed, "and is printed as it was");
  must(nix::derivation_path(*drv) == nix::derivation_path(*again), "and has one path");
  return 0;
}
