#include "messages/events.hpp"

#include "apps/common/event_text.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/coppice-admin/commands.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {
namespace {

/// Of a follower that asked for no number.
constexpr std::uint64_t events_shown_first = 10;

/// Says that the numbering is another one, or that some events are no longer kept.
void print_break(const event_page& page, bool began_anew, bool as_json) {
  if (as_json) {
    if (began_anew) std::cout << json_text({{"event", "new_epoch"}, {"epoch", page.stream}}) << '\n';
    if (page.lost > 0) std::cout << json_text({{"event", "gap"}, {"epoch", page.stream}, {"lost", page.lost}}) << '\n';
    return;
  }
  if (began_anew)
    std::cout << fmt::format("-- node {} was started again: its events are numbered anew, epoch {}\n",
                             cleaned(page.node.value), page.stream);
  if (page.lost > 0) std::cout << fmt::format("-- {} no longer kept\n", counted(page.lost, "event is", "events are"));
}

void print_events(const event_page& page, bool as_json) {
  for (auto& e : page.events) {
    if (as_json)
      std::cout << json_text(event_json(e, page.stream)) << '\n';
    else
      std::cout << event_line(e) << '\n';
  }
}

} // namespace

expected<void> events_command(farm& f, const events_options& options, bool json) {
  const auto target = target_on(options.node, "observatory");
  follow_events query;
  query.stream = options.epoch;
  query.after = options.since.value_or(0);
  if (options.follow && !options.since) {
    query.after = events_from_now;
    auto now = f.ask<event_page>(target, "events", query);
    if (!now) return tl::unexpected(now.error());
    query.after = now->next - std::min(now->next, events_shown_first);
  }
  query.wait_ms = options.follow ? poll_wait_ms_max : 0;
  while (true) {
    auto page = f.ask<event_page>(target, "events", query, 2 * farm::call_timeout);
    if (!page) return tl::unexpected(page.error());
    print_break(*page, query.stream != 0 && query.stream != page->stream, json);
    print_events(*page, json);
    std::cout.flush();
    if (!options.follow && page->events.size() < query.limit) return {};
    if (!std::cout) return fail(ec::io, "cannot write the events: standard output is closed");
    query.stream = page->stream;
    query.after = page->next;
  }
}

} // namespace coppice::app
