#pragma once

#include "messages/ids.hpp"
#include "nix/derivation.hpp"

#include <cstdint>
#include <map>
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

struct closure_derivation {
  nix::derivation drv;
  std::string aterm;
};

/// Derivations by the paths of their .drv files, with all their input derivations.
using derivation_closure = std::map<nix::store_path, closure_derivation>;

/// The bytes to upload. `limit_exceeded` for a text of 4 GiB or more.
expected<std::string> pack_closure(const std::vector<std::pair<nix::store_path, std::string>>& derivations);

/// Reads and checks a packed closure, compressed or not: every text is a canonical derivation whose path follows from
/// it, none occurs twice, every input derivation is there, there is no cycle. `bad_message` for bytes of another
/// format, `invalid`, naming the derivation, for what is wrong in itself, `limit_exceeded`.
expected<derivation_closure> unpack_closure(std::string_view bytes, const closure_limits& limits = {},
                                            std::string_view store_dir = "/nix/store");

/// `invalid`, naming two of its derivations, if there is a cycle; inputs that are absent are passed over.
expected<void> check_acyclic(const derivation_closure& closure, std::string_view store_dir = "/nix/store");

/// sha256 of the uploaded bytes.
blob_id closure_id(std::string_view bytes);

} // namespace coppice::store
