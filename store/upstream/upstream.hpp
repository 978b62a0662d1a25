#pragma once

#include "messages/pipeline.hpp"
#include "store/local_store.hpp"
#include "store/upstream/memory.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace coppice::store {

struct upstream_options {
  std::vector<std::string> urls; ///< as parse_cache_url gives them
  store::trust trust;
  std::chrono::milliseconds silence_max{10'000}; ///< a cache that says nothing for so long did not answer
  upstream_memory::limits memory;
  std::size_t requests_max = 128;              ///< narinfos asked for at once, of all caches together
  long connections_max = 8;                    ///< to one host; HTTP/2 takes one
  std::size_t questions_max = 256;             ///< without an answer; further ones are answered at once: unknown
  std::size_t narinfo_bytes_max = 1 << 20;     ///< a longer one is none
  unsigned cuts_max = 16;                      ///< times that the download of one NAR may break off and be resumed
  unsigned barren_max = 2;                     ///< of them, one after the other, that brought nothing
  std::chrono::milliseconds resume_delay{200}; ///< before that, growing with each
  unsigned silences_max = 3;                   ///< of the caches when a path is to be fetched, then nobody has it
  std::chrono::milliseconds silence_delay{1'000}; ///< after that, growing with each
};

/// The binary caches of others, as a port. Any number of threads may call it.
class upstream_port {
public:
  virtual ~upstream_port() = default;
  /// What caches have of these paths, each asked once, in their order; nothing is asked twice of a cache before its
  /// answer is old. Calls `done` exactly once, on another thread perhaps: with the answer, and whether asking again
  /// soon may tell more.
  using answer = std::function<void(upstream_paths, bool again)>;
  virtual void find(std::vector<nix::store_path> paths, answer done) = 0;
  /// Downloads the NAR of a path, from whichever cache gives a right one, and makes the path valid in the local store.
  /// Blocks. `missing` if no cache does, or those that might are silent for a few seconds; errors of the local store
  /// pass. A cache that gives anything else is not asked for the path for a while.
  virtual expected<void> fetch(const nix::store_path& path, local_store& into) = 0;
};

/// Those that settings name.
class upstream final : public upstream_port {
public:
  /// Starts the thread that asks. `clock` outlives it.
  upstream(upstream_options options, const rt::clock& clock);
  /// Transfers end soon, and all questions are answered.
  ~upstream() override;
  upstream(const upstream&) = delete;
  upstream& operator=(const upstream&) = delete;

  void find(std::vector<nix::store_path> paths, answer done) override;
  expected<void> fetch(const nix::store_path& path, local_store& into) override;
  /// Ends transfers soon; every later call is answered by unknown or `shutdown`.
  void stop();

private:
  class asker;
  struct shared;
  /// What the caches say of a path, asked if need be: found, absent or unknown. Blocks.
  upstream_memory::verdict ask(const nix::store_path& path);
  expected<void> unpack(const upstream_path& from, const std::string& base, local_store& into);
  std::shared_ptr<shared> shared_;
  std::unique_ptr<asker> asker_;
};

} // namespace coppice::store
