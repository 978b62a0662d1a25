#include "nix/nar.hpp"

#include <stdexcept>
#include <utility>

namespace coppice::nix {

namespace {

constexpr std::size_t block_bytes = 64 * 1024;
constexpr std::size_t copied_bytes_max = 4 * 1024; // longer contents are passed on rather than collected

void demand(bool condition, const char* what) {
  if (!condition) throw std::logic_error(std::string{"nar_writer: "} + what);
}

} // namespace

nar_writer::nar_writer(sink out) : out_(std::move(out)) {
  put("nix-archive-1");
}

void nar_writer::flush() {
  if (!pending_.empty()) out_(pending_);
  pending_.clear();
}

void nar_writer::put(std::string_view word) {
  const auto before = pending_.size();
  append_word(pending_, word);
  size_ += pending_.size() - before;
  if (pending_.size() >= block_bytes) flush();
}

void nar_writer::raw(std::string_view bytes) {
  size_ += bytes.size();
  if (bytes.size() > copied_bytes_max) {
    flush();
    out_(bytes);
    return;
  }
  pending_ += bytes;
  if (pending_.size() >= block_bytes) flush();
}

void nar_writer::require(expects state, const char* event) const {
  if (expects_ != state) throw std::logic_error(std::string{"nar_writer: no place for "} + event);
}

void nar_writer::begin_node() {
  put("(");
  put("type");
}

void nar_writer::end_node() {
  put(")");
  if (last_names_.empty()) {
    expects_ = expects::nothing;
    return;
  }
  put(")"); // of the entry
  expects_ = expects::entry_or_end;
}

void nar_writer::begin_directory() {
  require(expects::node, "a directory");
  begin_node();
  put("directory");
  last_names_.emplace_back();
  expects_ = expects::entry_or_end;
}

void nar_writer::entry(std::string_view name) {
  require(expects::entry_or_end, "an entry");
  demand(!name.empty() && name != "." && name != ".." && name.find_first_of({"/\0", 2}) == name.npos,
         "an impossible name");
  demand(last_names_.back() < name, "names out of order");
  last_names_.back() = name;
  put("entry");
  put("(");
  put("name");
  put(name);
  put("node");
  expects_ = expects::node;
}

void nar_writer::end_directory() {
  require(expects::entry_or_end, "the end of a directory");
  last_names_.pop_back();
  end_node();
}

void nar_writer::regular(bool executable, std::uint64_t size) {
  require(expects::node, "a file");
  begin_node();
  put("regular");
  if (executable) {
    put("executable");
    put("");
  }
  put("contents");
  std::string length;
  append_number(length, size);
  raw(length);
  contents_left_ = size;
  contents_padding_ = padding_after(size);
  expects_ = expects::contents;
  if (size == 0) end_node();
}

void nar_writer::contents(std::string_view chunk) {
  if (chunk.empty()) return;
  require(expects::contents, "contents");
  demand(chunk.size() <= contents_left_, "more contents than announced");
  raw(chunk);
  contents_left_ -= chunk.size();
  if (contents_left_ > 0) return;
  raw(std::string_view{"\0\0\0\0\0\0\0", 7}.substr(0, contents_padding_));
  end_node();
}

void nar_writer::symlink(std::string_view target) {
  require(expects::node, "a symbolic link");
  begin_node();
  put("symlink");
  put("target");
  put(target);
  end_node();
}

void nar_writer::finish() {
  require(expects::nothing, "the end");
  flush();
}

} // namespace coppice::nix
