#pragma once

#include "messages/build.hpp"
#include "nix/hash.hpp"
#include "nix/store_path.hpp"
#include "store/blob_store.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace coppice::actors {

/// Digests of the same bytes, in the order of nix::hash_algo.
using all_digests = std::array<nix::hash, 4>;

/// The content address ("text:sha256:…", "fixed:[r:]<algo>:…") from which `path` follows, if there is one. `contents`
/// is set if the object is a regular file that is not executable.
std::optional<std::string> find_content_address(const nix::store_path& path, const all_digests& nar,
                                                const std::optional<all_digests>& contents,
                                                const std::set<nix::store_path>& references,
                                                std::string_view store_dir);

/// Takes one source as `nix-store --export` writes it, compressed by zstd or not, and believes none of its claims: the
/// path must follow from the bytes and the references.
class source_upload {
public:
  struct options {
    std::uint64_t nar_bytes_max = UINT64_C(16) << 30;
    int compression_level = 3;
    std::string store_dir = "/nix/store";
  };
  /// `spool` gets the compressed NAR.
  source_upload(nix::store_path path, std::unique_ptr<store::blob_writer> spool, const options& o);
  ~source_upload();

  /// The next bytes. `bad_message` for what is no export of exactly one path, `limit_exceeded`, and the spool's errors;
  /// after an error only destruction makes sense.
  expected<void> write(std::string_view bytes);

  /// What was found, without a deriver and with generation 0. `invalid`, naming the path, if it is not the one wanted
  /// or is not content-addressed. Called once, last.
  expected<path_info> finish();

  /// Where the compressed NAR is, to be committed under nar_key() after finish().
  store::blob_writer& spool();

private:
  class reading;
  std::unique_ptr<reading> reading_;
};

} // namespace coppice::actors
