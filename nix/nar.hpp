#pragma once

#include "nix/error.hpp"
#include "nix/word.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::nix {

/// Takes the next bytes of a stream; they are valid during the call only.
using sink = std::function<void(std::string_view)>;

/// Writes one NAR from events; small pieces are collected into blocks, contents of files are passed on as they come.
/// Events in an order that makes no NAR are bugs of the caller: std::logic_error.
class nar_writer {
public:
  explicit nar_writer(sink out);

  void begin_directory();
  /// Announces the next node's name in the open directory; names come in bytewise order.
  void entry(std::string_view name);
  void end_directory();

  /// Opens a file of exactly `size` bytes, which contents() then delivers; it is closed with its last byte.
  void regular(bool executable, std::uint64_t size);
  void contents(std::string_view chunk);

  void symlink(std::string_view target);

  /// Ends the NAR, which must be complete, and hands the last bytes over.
  void finish();

  /// Bytes of contents still owed to the open file.
  std::uint64_t contents_left() const { return contents_left_; }

  /// Bytes written so far, pending ones included.
  std::uint64_t size() const { return size_; }

private:
  enum class expects { node, entry_or_end, contents, nothing };
  void put(std::string_view word);
  void raw(std::string_view bytes);
  void require(expects state, const char* event) const;
  void begin_node();
  void end_node();
  void flush();

  sink out_;
  std::string pending_;
  std::vector<std::string> last_names_; // one for each open directory
  expects expects_ = expects::node;
  std::uint64_t contents_left_ = 0;
  std::size_t contents_padding_ = 0;
  std::uint64_t size_ = 0;
};

/// What a NAR holds, told in order; a method that fails ends the reading with its error.
class nar_visitor {
public:
  virtual ~nar_visitor() = default;
  virtual expected<void> begin_directory() { return {}; }
  /// The next node is this entry of the innermost open directory; never empty, ".", "..", nor with '/' or NUL.
  virtual expected<void> entry([[maybe_unused]] std::string_view name) { return {}; }
  virtual expected<void> end_directory() { return {}; }
  virtual expected<void> regular([[maybe_unused]] bool executable, [[maybe_unused]] std::uint64_t size) { return {}; }
  /// The next bytes of the open file; never empty.
  virtual expected<void> contents([[maybe_unused]] std::string_view chunk) { return {}; }
  virtual expected<void> end_regular() { return {}; }
  /// Never empty, never with NUL.
  virtual expected<void> symlink([[maybe_unused]] std::string_view target) { return {}; }
  /// The whole NAR was read.
  virtual expected<void> end() { return {}; }
};

/// How large a NAR's parts may be; a larger one is refused, not cut.
struct nar_limits {
  std::size_t depth_max = 1024;              ///< directories inside each other.
  std::size_t name_bytes_max = 255;          ///< an entry's name, as Linux has it.
  std::size_t target_bytes_max = 4095;       ///< a symbolic link's target, as Linux has it.
  std::uint64_t entries_max = 16'000'000;    ///< entries of all directories together.
  std::uint64_t file_bytes_max = 1ull << 40; ///< one file's contents.
};

/// Parses one NAR fed in pieces of any size; memory is bounded by depth_max * name_bytes_max, whatever lengths the NAR
/// claims.
class nar_reader {
public:
  /// `visitor` must outlive the reader.
  explicit nar_reader(nar_visitor& visitor, const nar_limits& limits = {});

  /// Takes all of `chunk`; fails on the first byte that cannot be part of the NAR, or stands behind it. After a failure
  /// each further call fails alike.
  expected<void> feed(std::string_view chunk);

  /// Like feed, but stops at the NAR's end: returns how many bytes belong to it.
  expected<std::size_t> feed_some(std::string_view chunk);

  /// Fails unless the NAR is complete.
  expected<void> finish() const;

  /// Whether the last byte was read.
  bool done() const { return state_ == state::done; }

  /// Bytes read so far.
  std::uint64_t size() const { return offset_; }

private:
  enum class state : std::uint8_t {
    magic,
    node_open,
    type_word,
    type,
    regular_field,
    contents_word,
    executable_value,
    contents_size,
    contents_bytes,
    contents_padding,
    target_word,
    target,
    directory_field,
    entry_open,
    name_word,
    name,
    node_word,
    node_close,
    entry_close,
    done
  };
  expected<void> consume(std::string_view& chunk);
  expected<void> on_word(std::string_view word);
  expected<void> on_type(std::string_view word);
  expected<void> on_name(std::string_view word);
  expected<void> on_target(std::string_view word);
  expected<void> on_size(std::uint64_t size);
  expected<void> pass_contents(std::string_view& chunk);
  expected<void> skip_padding(std::string_view& chunk);
  expected<void> end_directory();
  expected<void> close_node();
  expected<void> want(std::string_view word, std::string_view wanted, state next);
  std::size_t word_bytes_max() const;
  tl::unexpected<error> bad(std::string_view why) const;

  nar_visitor& visitor_;
  nar_limits limits_;
  state state_ = state::magic;
  bool executable_ = false;
  std::optional<std::string> failure_;
  word_reader words_;
  std::uint64_t contents_left_ = 0; // of the open file
  std::size_t padding_left_ = 0;    // after it
  std::uint64_t offset_ = 0;
  std::uint64_t item_at_ = 0; // where the word, number or contents being read start
  std::uint64_t entries_ = 0;
  std::vector<std::string> last_names_; // one for each open directory
};

/// Reads a NAR that is wholly in memory.
expected<void> read_nar(std::string_view nar, nar_visitor& visitor, const nar_limits& limits = {});

} // namespace coppice::nix
