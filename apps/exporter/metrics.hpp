#pragma once

#include "messages/events.hpp"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <map>
#include <string>

/// A node's events as Prometheus metrics.
namespace coppice::app {

/// Counts what it is told. The number of series is bounded: labels are results, slots and actors without the names that
/// come and go. Any thread may read text() meanwhile.
class node_metrics {
public:
  node_metrics();

  /// A page that follows the one before it.
  void take(const event_page& page, std::int64_t wall_ms);
  /// The node does not answer; the gauges keep what it said last.
  void lost_contact();
  /// All metrics in Prometheus's text format.
  std::string text() const;

  /// Actors that have series of their own; further ones are counted as "other".
  static constexpr std::size_t actors_max = 200;

private:
  using counters = prometheus::Family<prometheus::Counter>;
  counters& counter_family(const std::string& name, const std::string& help);
  prometheus::Counter& counter(const std::string& name, const std::string& help);
  prometheus::Gauge& gauge(const std::string& name, const std::string& help, const prometheus::Labels& labels = {});
  prometheus::Histogram& histogram(const std::string& name, const std::string& help);
  void count(const farm_event& e);
  void show(const node_gauges& g);
  prometheus::Labels actor_of(const farm_event& e);

  prometheus::Registry registry_;
  std::map<std::string, std::string> actors_; ///< label of each path's kind
  std::uint64_t stream_ = 0;

  prometheus::Gauge &up_, &last_contact_;
  prometheus::Counter &events_, &events_lost_, &node_starts_;
  prometheus::Counter& requests_accepted_;
  counters &requests_ended_, &steps_ended_, &builds_, &cache_hits_;
  prometheus::Histogram &request_seconds_, &build_seconds_;
  prometheus::Counter &attempts_, &built_bytes_, &uploaded_bytes_, &uploads_, &uploads_deferred_, &published_,
      &substituted_bytes_;
  counters &actor_deaths_, &actor_restarts_, &actors_given_up_;
  prometheus::Counter &escalations_, &corrections_;
  prometheus::Gauge &requests_open_, &waiting_cpu_, &waiting_io_, &oldest_waiting_, &free_cpu_, &free_io_, &running_,
      &actors_there_;
};

} // namespace coppice::app
