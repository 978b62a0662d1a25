#include "store/resumable_reader.hpp"

#include <algorithm>

namespace coppice::store {

resumable_reader::resumable_reader(std::string name, std::unique_ptr<http_exchange> stream, std::uint64_t size,
                                   ask_again again, const reading_bounds& bounds, const std::atomic<bool>& stop)
    : name_(std::move(name))
    , again_(std::move(again))
    , stream_(std::move(stream))
    , size_(size)
    , version_(stream_->header("ETag"))
    , bounds_(bounds)
    , stop_(stop) {}

std::string resumable_reader::version() const {
  const bool quoted = version_.size() >= 2 && version_.front() == '"' && version_.back() == '"';
  return quoted ? version_.substr(1, version_.size() - 2) : version_;
}

expected<std::size_t> resumable_reader::read(std::uint64_t offset, std::span<char> into) {
  into = into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), size_ - std::min(offset, size_))));
  std::size_t done = 0;
  while (done < into.size()) {
    auto got = next(offset + done, into.subspan(done));
    if (!got)
      if (auto borne = bear(got.error()); !borne) return tl::unexpected(borne.error());
    done += got.value_or(0);
  }
  return done;
}

/// What comes next from there on, at least one byte.
expected<std::size_t> resumable_reader::next(std::uint64_t from, std::span<char> into) {
  if (!stream_ || at_ != from)
    if (auto done = resume(from); !done) return tl::unexpected(done.error());
  auto got = stream_->read(into);
  if (!got) return got;
  if (*got == 0) return fail(ec::unavailable, "blob " + name_ + " ends too early, at byte " + std::to_string(at_));
  at_ += *got;
  since_cut_ += *got;
  if (at_ == size_) stream_->words(); // nothing comes, but the connection can be used again
  return got;
}

expected<void> resumable_reader::resume(std::uint64_t from) {
  stream_.reset();
  if (version_.empty()) return fail(ec::io, "blob " + name_ + " cannot be read on: it has no version");
  const auto first = std::to_string(from), size = std::to_string(size_);
  auto x = again_({"Range: bytes=" + first + "-", "If-Match: " + version_});
  if (!x) return tl::unexpected(x.error());
  if ((*x)->header("Content-Range") != "bytes " + first + "-" + std::to_string(size_ - 1) + "/" + size ||
      (*x)->header("ETag") != version_)
    return fail(ec::conflict, "blob " + name_ + " is another one now");
  stream_ = std::move(*x);
  at_ = from;
  return {};
}

/// Takes a cut as one of those that may be, and pauses; else the error.
expected<void> resumable_reader::bear(const error& e) {
  const auto seconds = static_cast<std::uint64_t>(bounds_.patience.silence_max.count()) / 1000 + 1;
  stream_.reset();
  barren_ = since_cut_ < bounds_.patience.bytes_per_second_min * seconds ? barren_ + 1 : 0;
  since_cut_ = 0;
  if (e.code != ec::unavailable || ++cuts_ > bounds_.cuts_max || barren_ > bounds_.barren_max) return tl::unexpected(e);
  pause_unless(stop_, bounds_.retry_delay * (barren_ + 1));
  return {};
}

} // namespace coppice::store
