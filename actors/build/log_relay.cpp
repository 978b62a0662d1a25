#include "actors/build/log_relay.hpp"

#include "runtime/fd.hpp"
#include "runtime/log.hpp"
#include "store/files.hpp"

#include <fcntl.h>

#include <cerrno>

namespace coppice::actors {
namespace {

/// After which a full pool is asked again.
constexpr std::chrono::milliseconds pool_retry{50};

} // namespace

/// Used by one job of the pool at a time.
struct log_relay_state::log_file {
  std::filesystem::path path;
  rt::unique_fd fd;

  expected<void> append(std::string_view bytes) {
    if (!fd) fd.reset(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (!fd) return tl::unexpected(store::system_error(errno, "cannot open the log " + path.string()));
    return store::write_all(fd.get(), bytes, path);
  }
};

log_relay_state::log_relay_state(rt::self<interface>* self, config c, worker_actor worker)
    : self_(self), config_(std::move(c)), worker_(std::move(worker)), file_(new log_file{config_.file, {}}) {}

log_relay_actor::behavior_type log_relay_state::make_behavior() {
  self_->doing("writes " + config_.file.string());
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg&) { self_->quit(); }); // nobody wants it any more
  self_->monitor(worker_);
  return {
      [this](atom::output_atom, std::string& bytes) { on_output(std::move(bytes)); },
      [this](atom::done_atom) -> caf::result<std::string> {
        done_.emplace(self_);
        auto answer = *done_;
        finish();
        return answer;
      },
      [this](atom::stored_atom, std::uint64_t bytes, const caf::error& e) { on_stored(bytes, e); },
  };
}

void log_relay_state::on_output(std::string bytes) {
  text_.feed(bytes);
  tell_progress();
  if (waiting_.empty())
    waiting_ = std::move(bytes);
  else
    waiting_ += bytes;
  write();
}

/// Also called with 0 bytes, to look again after a while at what could not be done at once.
void log_relay_state::on_stored(std::uint64_t bytes, const caf::error& e) {
  if (bytes == 0) {
    telling_ = false;
    tell_progress();
  } else {
    writing_ -= bytes;
    config_.processes->ack(config_.process, bytes);
  }
  if (e && !failed_) {
    failed_ = true;
    rt::log::warn("LOG_RELAY", "{}; the rest of it is lost", to_string(from_caf(e)));
  }
  write();
  finish();
}

void log_relay_state::write() {
  if (writing_ > 0 || waiting_.empty()) return;
  if (failed_) {
    config_.processes->ack(config_.process, waiting_.size());
    waiting_.clear();
    return;
  }
  const std::uint64_t size = waiting_.size();
  auto bytes = std::make_shared<const std::string>(std::move(waiting_));
  waiting_.clear();
  auto told = [me = self_->incarnation(), size](caf::error e) {
    caf::anon_send(me, atom::stored_v, size, std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.pool, [file = file_, bytes] { return file->append(*bytes); },
      [told](const expected<void>& done) { told(done ? caf::error{} : make_error(done.error())); },
      [told](const std::string& what) { told(make_error(ec::crashed, what)); });
  if (posted) {
    writing_ = size;
    return;
  }
  waiting_ = *bytes;
  self_->later(pool_retry, atom::stored_v, std::uint64_t{0}, caf::error{});
}

void log_relay_state::tell_progress() {
  auto& p = config_.progress;
  auto line = text_.last_line();
  if (telling_ || (line == p.last_line && text_.phase() == p.phase)) return;
  const auto now = self_->now();
  if (told_ && now - *told_ < config_.progress_interval) {
    telling_ = true;
    self_->later(config_.progress_interval - (now - *told_), atom::stored_v, std::uint64_t{0}, caf::error{});
    return;
  }
  told_ = now;
  p.last_line = std::move(line);
  p.phase = text_.phase();
  self_->send(worker_, atom::progress_v, p);
}

void log_relay_state::finish() {
  if (!done_ || writing_ > 0 || !waiting_.empty()) return;
  done_->deliver(text_.tail());
  done_.reset();
}

} // namespace coppice::actors
