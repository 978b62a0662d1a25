#pragma once

#include "messages/ids.hpp"
#include "nix/derivation_view.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The packed derivation closure that a client uploads: a msgpack array of [base name of the .drv, its text], usually
/// zstd-compressed.
namespace coppice::store {

struct closure_limits {
  std::size_t derivations_max = 2'000'000;
  std::uint64_t bytes_max = UINT64_C(4) << 30; ///< decompressed
};

/// The derivations of a closure, with all their input derivations, and the text in which they stand.
class derivation_closure {
public:
  struct item {
    nix::store_path path; ///< of the .drv
    nix::derivation_view drv;
    std::vector<std::uint32_t> inputs; ///< indices of the input derivations, as in drv.inputs()
  };
  derivation_closure(std::shared_ptr<const std::string> bytes, std::vector<item> items)
      : bytes_(std::move(bytes)), items_(std::move(items)) {}

  /// Every derivation comes after its inputs.
  const std::vector<item>& items() const { return items_; }

private:
  std::shared_ptr<const std::string> bytes_;
  std::vector<item> items_;
};

/// The bytes to upload. `limit_exceeded` for a text of 4 GiB or more.
expected<std::string> pack_closure(const std::vector<std::pair<nix::store_path, std::string>>& derivations);

/// Reads and checks a packed closure, compressed or not: every text is a canonical derivation whose path follows from
/// it, none occurs twice, every input derivation is there, there is no cycle. `bad_message` for bytes of another
/// format, `invalid`, naming the derivation, for what is wrong in itself, `limit_exceeded`.
expected<derivation_closure> unpack_closure(std::string_view bytes, const closure_limits& limits = {},
                                            std::string_view store_dir = "/nix/store");

/// The nodes of a graph, each after its inputs; or a node that is an input of itself, by way of others.
tl::expected<std::vector<std::uint32_t>, std::uint32_t>
inputs_first(const std::vector<std::vector<std::uint32_t>>& inputs);

/// sha256 of the uploaded bytes.
blob_id closure_id(std::string_view bytes);

} // namespace coppice::store
