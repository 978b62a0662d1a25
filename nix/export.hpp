#pragma once

#include "nix/nar.hpp"
#include "nix/store_path.hpp"
#include "nix/word.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace coppice::nix {

/// What `nix-store --export` states of a path, after its NAR.
struct export_info {
  store_path path;
  std::set<store_path> references;
  std::optional<store_path> deriver;

  bool operator==(const export_info&) const = default;
};

/// Writes the stream that `nix-store --import` reads: for each path begin_path, nar*, end_path; then finish.
class export_writer {
public:
  explicit export_writer(sink out, std::string_view store_dir = default_store_dir);

  void begin_path();
  /// The next bytes of the path's NAR, which are passed on unchecked.
  void nar(std::string_view chunk);
  void end_path(const export_info& info);
  void finish();

private:
  sink out_;
  std::string store_dir_;
};

/// What an export stream holds, told in order; a method that fails ends the reading with its error.
class export_visitor {
public:
  virtual ~export_visitor() = default;
  virtual expected<void> begin_path() = 0;
  /// The next bytes of the path's NAR, as they stand in the stream, found valid so far.
  virtual expected<void> nar(std::string_view chunk) = 0;
  virtual expected<void> end_path(const export_info& info) = 0;
};

/// How large an export stream's parts may be; a larger one is refused.
struct export_limits {
  nar_limits nar;
  std::uint64_t references_max = 100'000; ///< of one path.
};

/// Parses an export stream fed in pieces of any size, in bounded memory.
class export_reader {
public:
  /// `visitor` must outlive the reader.
  explicit export_reader(export_visitor& visitor, std::string_view store_dir = default_store_dir,
                         const export_limits& limits = {});

  /// Takes all of `chunk`; after a failure each further call fails alike.
  expected<void> feed(std::string_view chunk);

  /// Fails unless the end marker was read.
  expected<void> finish() const;

  bool done() const { return state_ == state::done; }

private:
  enum class state : std::uint8_t { marker, nar, magic, path, reference_count, reference, deriver, trailer, done };
  expected<void> consume(std::string_view& chunk);
  expected<void> consume_nar(std::string_view& chunk);
  expected<void> on_number(std::uint64_t number);
  expected<void> on_text(std::string_view text);
  bool expects_text() const;

  export_visitor& visitor_;
  std::string store_dir_;
  export_limits limits_;
  nar_visitor no_visitor_;
  std::optional<nar_reader> nar_;
  state state_ = state::marker;
  word_reader words_;
  std::uint64_t references_left_ = 0;
  export_info info_;
  std::optional<std::string> failure_;
};

} // namespace coppice::nix
