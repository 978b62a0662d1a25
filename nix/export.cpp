#include "nix/export.hpp"

#include <utility>

namespace coppice::nix {

namespace {

constexpr std::uint64_t path_follows = 1, stream_ends = 0;
constexpr std::uint64_t trailer_magic = 0x4558494e; // "NIXE"
constexpr std::size_t path_bytes_max = 4096;

} // namespace

export_writer::export_writer(sink out, std::string_view store_dir) : out_(std::move(out)), store_dir_(store_dir) {}

void export_writer::begin_path() {
  std::string bytes;
  append_number(bytes, path_follows);
  out_(bytes);
}

void export_writer::nar(std::string_view chunk) {
  out_(chunk);
}

void export_writer::end_path(const export_info& info) {
  std::string bytes;
  append_number(bytes, trailer_magic);
  append_word(bytes, info.path.to_string(store_dir_));
  append_number(bytes, info.references.size());
  for (const auto& reference : info.references)
    append_word(bytes, reference.to_string(store_dir_));
  append_word(bytes, info.deriver ? info.deriver->to_string(store_dir_) : std::string{});
  append_number(bytes, 0); // once a signature followed
  out_(bytes);
}

void export_writer::finish() {
  std::string bytes;
  append_number(bytes, stream_ends);
  out_(bytes);
}

export_reader::export_reader(export_visitor& visitor, std::string_view store_dir, const export_limits& limits)
    : visitor_(visitor), store_dir_(store_dir), limits_(limits) {}

expected<void> export_reader::feed(std::string_view chunk) {
  if (failure_) return fail(*failure_);
  while (!chunk.empty()) {
    auto read = done() ? expected<void>{fail("bytes after the end")} : consume(chunk);
    if (read) continue;
    failure_ = "cannot read export stream: " + read.error().what;
    return fail(*failure_);
  }
  return {};
}

expected<void> export_reader::finish() const {
  if (failure_) return fail(*failure_);
  if (!done()) return fail("cannot read export stream: it ends too early");
  return {};
}

expected<void> export_reader::consume(std::string_view& chunk) {
  if (state_ == state::nar) return consume_nar(chunk);
  if (!expects_text()) {
    const auto number = words_.number(chunk);
    return number ? on_number(*number) : expected<void>{};
  }
  const auto text = words_.word(chunk, path_bytes_max);
  if (!text) return tl::unexpected<error>(text.error());
  return *text ? on_text(**text) : expected<void>{};
}

bool export_reader::expects_text() const {
  return state_ == state::path || state_ == state::reference || state_ == state::deriver;
}

expected<void> export_reader::consume_nar(std::string_view& chunk) {
  const auto count = nar_->feed_some(chunk);
  if (!count) return tl::unexpected<error>(count.error());
  const auto part = chunk.substr(0, *count);
  chunk.remove_prefix(*count);
  if (nar_->done()) state_ = state::magic;
  return part.empty() ? expected<void>{} : visitor_.nar(part);
}

expected<void> export_reader::on_number(std::uint64_t number) {
  switch (state_) {
  case state::marker:
    if (number == stream_ends) {
      state_ = state::done;
      return {};
    }
    if (number != path_follows) return fail("marker ", number, " is neither 0 nor 1");
    info_ = {};
    nar_.emplace(no_visitor_, limits_.nar);
    state_ = state::nar;
    return visitor_.begin_path();
  case state::magic:
    if (number != trailer_magic) return fail("number ", number, " where the trailer should start");
    state_ = state::path;
    return {};
  case state::reference_count:
    if (number > limits_.references_max)
      return fail(info_.path.base_name(), " has ", number, " references, more than ", limits_.references_max);
    references_left_ = number;
    state_ = number > 0 ? state::reference : state::deriver;
    return {};
  default: // the trailer's last number
    if (number != 0) return fail(info_.path.base_name(), " has a signature of a kind that is no more");
    state_ = state::marker;
    return visitor_.end_path(info_);
  }
}

expected<void> export_reader::on_text(std::string_view text) {
  if (state_ == state::deriver && text.empty()) {
    state_ = state::trailer;
    return {};
  }
  auto path = store_path::parse(text, store_dir_);
  if (!path) return tl::unexpected<error>(std::move(path.error()));
  if (state_ == state::path) {
    info_.path = std::move(*path);
    state_ = state::reference_count;
  } else if (state_ == state::reference) {
    info_.references.insert(std::move(*path));
    if (--references_left_ == 0) state_ = state::deriver;
  } else {
    info_.deriver = std::move(*path);
    state_ = state::trailer;
  }
  return {};
}

} // namespace coppice::nix
