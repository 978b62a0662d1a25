#include "apps/coppice/client.hpp"

#include "apps/common/report.hpp"
#include "runtime/clock.hpp"

#include <fmt/format.h>

namespace coppice::app {
namespace {

/// How long one poll waits for news: as long as Ctrl-C may have to wait.
constexpr std::uint32_t poll_wait_ms = 1000;
/// After it a node that still does not answer counts as away.
constexpr std::chrono::milliseconds poll_timeout{4'000};
/// How long a cancelled request is followed to its end.
constexpr std::chrono::seconds cancel_patience{15};

} // namespace

client::client(rt::signals& signals, const farm_options& options, bool quiet)
    : signals_(signals), options_(options), console_(quiet), display_(console_.options()) {}

int client::run(const std::function<expected<int>()>& work) {
  const auto guarded = [&]() -> int {
    auto done = work();
    console_.draw({});
    if (done) return *done;
    console_.say({fmt::format("coppice: {}", done.error().what)});
    return exit_code_of(done.error());
  };
  return attend(signals_, guarded, {[this] { redraw(); }, [this] { transfers_.stop = true; }});
}

expected<void> client::connect() {
  auto found = farm::find(options_, transfers_.stop, [this](const std::string& endpoint) {
    std::vector<std::string> lines;
    {
      const std::lock_guard lock(mutex_);
      lines = display_.away(endpoint, clock::now());
    }
    console_.say(lines);
  });
  if (!found) return tl::unexpected(found.error());
  farm_.emplace(std::move(*found));
  return {};
}

void client::redraw() {
  std::vector<std::string> block;
  const auto size = console_.size();
  {
    const std::lock_guard lock(mutex_);
    if (following_ || display_.is_away()) {
      block = display_.block(clock::now(), size);
    } else if (!doing_.empty() && size.width > 1) {
      auto line = doing_;
      if (transferring_ && transfers_.total > 0)
        line +=
            fmt::format(" {}/{} · {}", transfers_.done.load(), transfers_.total.load(), bytes_text(transfers_.bytes));
      block = {fitted("[" + line + "]", size.width - 1)};
    }
  }
  console_.draw(block);
}

void client::back() {
  std::vector<std::string> lines;
  {
    const std::lock_guard lock(mutex_);
    if (!display_.is_away()) return;
    lines = display_.back();
  }
  redraw(); // so that what is printed next is not below "waiting for …"
  console_.say(lines);
}

void client::doing(const std::string& what) {
  const std::lock_guard lock(mutex_);
  doing_ = what;
  transferring_ = following_ = false;
}

void client::transferring(const std::string& what) {
  const std::lock_guard lock(mutex_);
  doing_ = what;
  transferring_ = true;
  following_ = false;
}

void client::take(const request_progress& news) {
  std::vector<std::string> lines;
  {
    const std::lock_guard lock(mutex_);
    following_ = true;
    lines = display_.take(news, clock::now());
  }
  redraw(); // so that what ends leaves the block as its line appears
  console_.say(lines);
}

void client::know(step_graph graph) {
  const std::lock_guard lock(mutex_);
  display_.know(std::move(graph));
}

void client::began(std::int64_t submitted_ms) {
  const auto submitted = decltype(rt::real_clock{}.wall_now()){std::chrono::milliseconds{submitted_ms}};
  const auto age = rt::real_clock{}.wall_now() - submitted;
  const std::lock_guard lock(mutex_);
  display_.began(clock::now() - std::chrono::duration_cast<clock::duration>(age));
}

void client::ask_durations() {
  std::vector<std::string> names;
  {
    const std::lock_guard lock(mutex_);
    names = display_.names_to_ask(ledger::names_per_query_max);
  }
  if (names.empty()) return;
  auto past = farm_->ask<ledger::durations>("observatory", "durations", ledger::read_durations{names}, poll_timeout);
  if (!past) return; // ignored: without the past nothing is guessed
  const std::lock_guard lock(mutex_);
  display_.learn(names, past->ms);
}

expected<request_progress> client::poll(const request_id& id, std::uint64_t after) {
  auto news = farm_->ask<request_progress>("gateway", "poll", poll_request{id, after, poll_wait_ms}, poll_timeout);
  if (!news && news.error().code == ec::unavailable)
    return fail(ec::unavailable, fmt::format("{}\n  the request may go on; look again with: coppice watch {}",
                                             news.error().what, id.to_string()));
  return news;
}

expected<void> client::cancel(const request_id& id) {
  console_.say({fmt::format("cancelling request {} (Ctrl-C again leaves at once)", id.to_string())});
  auto done = ask<accepted>("gateway", "cancel", cancel_request{id});
  if (done) return {};
  return fail(done.error().code, fmt::format("cannot cancel request {}: {}", id.to_string(), done.error().what));
}

expected<request_progress> client::follow(const request_id& id, on_interrupt what) {
  std::uint64_t after = 0, stream = 0;
  std::optional<clock::time_point> cancelled;
  while (true) {
    if (interrupted() && what == on_interrupt::leave)
      return fail(ec::shutdown, fmt::format("left; request {} goes on, see it with: coppice watch {}", id.to_string(),
                                            id.to_string()));
    if (interrupted() && !cancelled) {
      if (auto done = cancel(id); !done) return tl::unexpected(done.error());
      cancelled = clock::now();
    }
    auto news = poll(id, after);
    if (!news) return news;
    const bool renumbered = news->stream != 0 && stream != 0 && news->stream != stream;
    if (news->stream != 0) stream = news->stream;
    take(*news);
    // Another coordinator counts from 1 again: what it said before our `after` is still to be heard.
    after = renumbered ? 0 : std::max(after, news->next);
    const bool more = renumbered || news->events.size() >= events_per_poll_max;
    if (news->state != request_state::open && !more) return news;
    ask_durations();
    if (cancelled && clock::now() - *cancelled > cancel_patience)
      return fail(ec::shutdown, fmt::format("request {} is cancelled, but has not ended yet", id.to_string()));
  }
}

} // namespace coppice::app
