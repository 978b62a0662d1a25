#include "nix/placeholder.hpp"

#include "nix/derivation.hpp"
#include "nix/hash.hpp"

namespace coppice::nix {

namespace {

std::string placeholder(const std::string& clear) {
  return '/' + base32_encode(sha256(clear));
}

} // namespace

std::string own_placeholder(std::string_view output) {
  return placeholder("nix-output:" + std::string{output});
}

std::string upstream_placeholder(const store_path& drv_path, std::string_view output) {
  std::string clear = "nix-upstream-output:";
  clear += drv_path.hash_part();
  clear += ':';
  clear += output_path_name(derivation_name(drv_path), output);
  return placeholder(clear);
}

} // namespace coppice::nix
