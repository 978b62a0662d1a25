#include "apps/exporter/metrics.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace coppice;
using namespace coppice::app;

namespace {

event_page page_of(std::vector<farm_event> events, std::uint64_t stream = 1) {
  event_page p;
  p.stream = stream;
  p.events = std::move(events);
  return p;
}

farm_event restarted(const std::string& path) {
  farm_event e;
  e.kind = event_kind::actor_restarted;
  e.actor = path;
  return e;
}

bool has_line(const node_metrics& m, const std::string& line) {
  return ("\n" + m.text()).find("\n" + line + "\n") != std::string::npos;
}

} // namespace

TEST_CASE("whatever actors are called, there is a bounded number of series, and none is lost from the sum") {
  node_metrics m;
  const std::size_t named = node_metrics::actors_max + 500;
  for (std::size_t i = 0; i < named; ++i) {
    m.take(page_of(
               {restarted("/oak/work/workers/hello." + std::to_string(i)), restarted("/oak/odd/" + std::to_string(i))}),
           0);
  }
  auto text = m.text();
  CHECK(std::count(text.begin(), text.end(), '\n') < 500);
  CHECK(text.find("hello") == std::string::npos);
  CHECK(has_line(m, "coppice_actor_restarts_total{actor=\"/work/workers/*\"} " + std::to_string(named)));
  CHECK(has_line(m, "coppice_actor_restarts_total{actor=\"other\"} " +
                        std::to_string(named - (node_metrics::actors_max - 1))));
}

TEST_CASE("every kind of event can be counted") {
  node_metrics m;
  for (auto k = 0; k <= static_cast<int>(event_kind::last_); ++k) {
    farm_event e;
    e.kind = static_cast<event_kind>(k);
    e.count = 3;
    m.take(page_of({e}), 5'000);
  }
  CHECK(has_line(m, "coppice_events_total 20"));
  CHECK(has_line(m, "coppice_reconcile_corrections_total 3"));
  CHECK(has_line(m, "coppice_builds_total{result=\"success\"} 1"));
  CHECK(has_line(m, "coppice_last_contact_timestamp_seconds 5"));
}

TEST_CASE("a new process of the node and events that were missed are counted, and an absent node is seen") {
  node_metrics m;
  CHECK(has_line(m, "coppice_up 0"));
  m.take(page_of({}, 1), 0);
  auto next = page_of({}, 2);
  next.lost = 7;
  m.take(next, 0);
  CHECK(has_line(m, "coppice_up 1"));
  CHECK(has_line(m, "coppice_node_starts_total 1"));
  CHECK(has_line(m, "coppice_events_lost_total 7"));
  m.lost_contact();
  CHECK(has_line(m, "coppice_up 0"));
}
