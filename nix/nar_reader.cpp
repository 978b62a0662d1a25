#include "nix/nar.hpp"

#include <algorithm>

namespace coppice::nix {

namespace {

constexpr std::size_t keyword_bytes_max = 16;

bool is_entry_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of({"/\0", 2}) == name.npos;
}

} // namespace

nar_reader::nar_reader(nar_visitor& visitor, const nar_limits& limits) : visitor_(visitor), limits_(limits) {}

expected<void> nar_reader::feed(std::string_view chunk) {
  const auto read = feed_some(chunk);
  if (!read) return tl::unexpected<error>(read.error());
  if (*read == chunk.size()) return {};
  item_at_ = offset_;
  failure_ = bad("bytes after its end").value().what;
  return fail(*failure_);
}

expected<std::size_t> nar_reader::feed_some(std::string_view chunk) {
  if (failure_) return fail(*failure_);
  auto rest = chunk;
  while (!rest.empty() && !done()) {
    if (!words_.in_word()) item_at_ = offset_;
    const auto before = rest.size();
    auto read = consume(rest);
    offset_ += before - rest.size();
    if (!read) {
      failure_ = read.error().what;
      return tl::unexpected<error>(std::move(read.error()));
    }
  }
  return chunk.size() - rest.size();
}

expected<void> nar_reader::finish() const {
  if (failure_) return fail(*failure_);
  if (!done()) return fail("malformed NAR: it ends too early, after ", offset_, " bytes");
  return {};
}

/// Takes one word, one number, or as many contents as there are.
expected<void> nar_reader::consume(std::string_view& chunk) {
  if (state_ == state::contents_bytes) return pass_contents(chunk);
  if (state_ == state::contents_padding) return skip_padding(chunk);
  if (state_ == state::contents_size) {
    const auto size = words_.number(chunk);
    return size ? on_size(*size) : expected<void>{};
  }
  const auto word = words_.word(chunk, word_bytes_max());
  if (!word) return bad(word.error().what);
  return *word ? on_word(**word) : expected<void>{};
}

std::size_t nar_reader::word_bytes_max() const {
  if (state_ == state::name) return limits_.name_bytes_max;
  if (state_ == state::target) return limits_.target_bytes_max;
  return keyword_bytes_max;
}

expected<void> nar_reader::on_word(std::string_view word) {
  switch (state_) {
  case state::magic: return want(word, "nix-archive-1", state::node_open);
  case state::node_open: return want(word, "(", state::type_word);
  case state::type_word: return want(word, "type", state::type);
  case state::type: return on_type(word);
  case state::regular_field:
    if (word == "contents") return want(word, "contents", state::contents_size);
    executable_ = true;
    return want(word, "executable", state::executable_value);
  case state::executable_value: return want(word, "", state::contents_word);
  case state::contents_word: return want(word, "contents", state::contents_size);
  case state::target_word: return want(word, "target", state::target);
  case state::target: return on_target(word);
  case state::directory_field:
    if (word == ")") return end_directory();
    return want(word, "entry", state::entry_open);
  case state::entry_open: return want(word, "(", state::name_word);
  case state::name_word: return want(word, "name", state::name);
  case state::name: return on_name(word);
  case state::node_word: return want(word, "node", state::node_open);
  case state::node_close: return want(word, ")", state::node_close).and_then([&] { return close_node(); });
  case state::entry_close: return want(word, ")", state::directory_field);
  case state::contents_size:
  case state::contents_bytes:
  case state::contents_padding:
  case state::done: break;
  }
  return bad("a word where none can be"); // not reached: consume() and feed_some() keep these states away
}

expected<void> nar_reader::on_type(std::string_view word) {
  if (word == "regular") {
    executable_ = false;
    state_ = state::regular_field;
    return {};
  }
  if (word == "symlink") {
    state_ = state::target_word;
    return {};
  }
  if (auto directory = want(word, "directory", state::directory_field); !directory) return directory;
  if (last_names_.size() >= limits_.depth_max)
    return bad("more than " + std::to_string(limits_.depth_max) + " directories inside each other");
  last_names_.emplace_back();
  return visitor_.begin_directory();
}

expected<void> nar_reader::on_name(std::string_view word) {
  if (!is_entry_name(word)) return bad("entry name " + quoted(word));
  auto& last = last_names_.back();
  if (word <= last)
    return bad("entry " + quoted(word) + (word == last ? " is there twice" : " stands after " + quoted(last)));
  if (++entries_ > limits_.entries_max) return bad("more than " + std::to_string(limits_.entries_max) + " entries");
  last = word;
  state_ = state::node_word;
  return visitor_.entry(word);
}

expected<void> nar_reader::on_target(std::string_view word) {
  if (word.empty() || word.find('\0') != word.npos) return bad("link target " + quoted(word));
  state_ = state::node_close;
  return visitor_.symlink(word);
}

expected<void> nar_reader::on_size(std::uint64_t size) {
  if (size > limits_.file_bytes_max)
    return bad("a file of " + std::to_string(size) + " bytes, more than " + std::to_string(limits_.file_bytes_max));
  contents_left_ = size;
  padding_left_ = padding_after(size);
  state_ = size > 0 ? state::contents_bytes : state::node_close;
  auto told = visitor_.regular(executable_, size);
  return told && size == 0 ? visitor_.end_regular() : told;
}

expected<void> nar_reader::pass_contents(std::string_view& chunk) {
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(contents_left_, chunk.size()));
  const auto part = chunk.substr(0, count);
  chunk.remove_prefix(count);
  contents_left_ -= count;
  if (auto told = visitor_.contents(part); !told || contents_left_ > 0) return told;
  state_ = padding_left_ > 0 ? state::contents_padding : state::node_close;
  return visitor_.end_regular();
}

expected<void> nar_reader::skip_padding(std::string_view& chunk) {
  const auto count = std::min(padding_left_, chunk.size());
  const auto padding = chunk.substr(0, count);
  if (const auto at = padding.find_first_not_of('\0'); at != padding.npos) {
    item_at_ += at;
    return bad("padding that is not zero");
  }
  chunk.remove_prefix(count);
  padding_left_ -= count;
  if (padding_left_ == 0) state_ = state::node_close;
  return {};
}

expected<void> nar_reader::end_directory() {
  last_names_.pop_back();
  if (auto told = visitor_.end_directory(); !told) return told;
  return close_node();
}

expected<void> nar_reader::close_node() {
  if (!last_names_.empty()) {
    state_ = state::entry_close;
    return {};
  }
  state_ = state::done;
  return visitor_.end();
}

expected<void> nar_reader::want(std::string_view word, std::string_view wanted, state next) {
  if (word != wanted) return bad("expected " + quoted(wanted) + ", found " + quoted(word));
  state_ = next;
  return {};
}

tl::unexpected<error> nar_reader::bad(std::string_view why) const {
  return fail("malformed NAR, in what starts at byte ", item_at_, ": ", why);
}

expected<void> read_nar(std::string_view nar, nar_visitor& visitor, const nar_limits& limits) {
  nar_reader reader{visitor, limits};
  return reader.feed(nar).and_then([&] { return reader.finish(); });
}

} // namespace coppice::nix
