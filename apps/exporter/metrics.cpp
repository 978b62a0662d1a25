#include "apps/exporter/metrics.hpp"

#include "apps/common/event_text.hpp"

#include <prometheus/text_serializer.h>

namespace coppice::app {
namespace {

/// Upper bounds in seconds: from a trivial step to a day.
const prometheus::Histogram::BucketBoundaries duration_buckets{0.1, 0.3,  1,     3,      10,     30,    100,
                                                               300, 1000, 3'600, 10'800, 36'000, 86'400};

double seconds(std::int64_t ms) {
  return static_cast<double>(ms) / 1000;
}

} // namespace

node_metrics::counters& node_metrics::counter_family(const std::string& name, const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
}

prometheus::Counter& node_metrics::counter(const std::string& name, const std::string& help) {
  return counter_family(name, help).Add({});
}

prometheus::Gauge& node_metrics::gauge(const std::string& name, const std::string& help,
                                       const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels);
}

prometheus::Histogram& node_metrics::histogram(const std::string& name, const std::string& help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add({}, duration_buckets);
}

// Names and meanings are in docs/operations.md, too.
node_metrics::node_metrics()
    : registry_(prometheus::Registry::InsertBehavior::Merge)
    , up_(gauge("coppice_up", "1 if the node answers."))
    , last_contact_(gauge("coppice_last_contact_timestamp_seconds", "When the node answered last."))
    , events_(counter("coppice_events_total", "Events of the node that were counted here."))
    , events_lost_(counter("coppice_events_lost_total", "Events that the node no longer had when it was asked."))
    , node_starts_(counter("coppice_node_starts_total", "New processes of the node that were seen."))
    , requests_accepted_(counter("coppice_requests_accepted_total", "Requests accepted."))
    , requests_ended_(counter_family("coppice_requests_ended_total", "Requests ended, by state."))
    , steps_ended_(counter_family("coppice_steps_ended_total", "Steps of requests ended, by what became of them."))
    , builds_(counter_family("coppice_builds_total", "Attempts at builds ended, by result."))
    , cache_hits_(counter_family("coppice_cache_hits_total", "Steps that needed no build, by where the outputs were."))
    , request_seconds_(histogram("coppice_request_duration_seconds", "From the submission of a request to its end."))
    , build_seconds_(histogram("coppice_build_duration_seconds", "Wall time of builders, whatever their result."))
    , attempts_(counter("coppice_attempts_started_total", "Attempts at builds started."))
    , built_bytes_(counter("coppice_built_bytes_total", "Outputs of successful builds, as NARs."))
    , uploaded_bytes_(counter("coppice_uploaded_bytes_total", "Compressed outputs put into the farm's store."))
    , uploads_(counter("coppice_uploads_total", "Uploads of outputs ended."))
    , uploads_deferred_(counter("coppice_uploads_deferred_total", "Outputs kept because the store did not take them."))
    , published_(counter("coppice_published_total", "Steps whose outputs the binary cache began to serve."))
    , substituted_bytes_(counter("coppice_substituted_bytes_total", "Outputs from upstream caches, as NARs."))
    , actor_deaths_(counter_family("coppice_actor_deaths_total", "Ends of actors by faults, by path."))
    , actor_restarts_(counter_family("coppice_actor_restarts_total", "Starts of actors after an end, by path."))
    , actors_given_up_(counter_family("coppice_actors_given_up_total", "Actors that died too often, by path."))
    , escalations_(counter("coppice_escalations_total", "Supervisors that ended because they gave up a child."))
    , corrections_(counter("coppice_reconcile_corrections_total", "What sweeps set right that events had missed."))
    , requests_open_(gauge("coppice_requests_open", "Requests that are not over."))
    , waiting_cpu_(gauge("coppice_queue_length", "Steps that wait for a worker, by kind of slot.", {{"slot", "cpu"}}))
    , waiting_io_(gauge("coppice_queue_length", "Steps that wait for a worker, by kind of slot.", {{"slot", "io"}}))
    , oldest_waiting_(gauge("coppice_oldest_runnable_age_seconds", "How long a step has waited for a worker at most."))
    , free_cpu_(gauge("coppice_slots_free", "Slots without a build, by kind.", {{"slot", "cpu"}}))
    , free_io_(gauge("coppice_slots_free", "Slots without a build, by kind.", {{"slot", "io"}}))
    , running_(gauge("coppice_builds_running", "Builds that hold a slot."))
    , actors_there_(gauge("coppice_actors", "Actors of the node.")) {
  // series that people alert on are there before the first of their events
  builds_.Add({{"result", "success"}});
  requests_ended_.Add({{"state", "succeeded"}});
  cache_hits_.Add({{"source", "farm"}});
  cache_hits_.Add({{"source", "upstream"}});
}

void node_metrics::take(const event_page& page, std::int64_t wall_ms) {
  up_.Set(1);
  last_contact_.Set(seconds(wall_ms));
  if (page.stream != stream_ && stream_ != 0) node_starts_.Increment();
  stream_ = page.stream;
  events_lost_.Increment(static_cast<double>(page.lost));
  events_.Increment(static_cast<double>(page.events.size()));
  for (auto& e : page.events)
    count(e);
  show(page.gauges);
}

void node_metrics::lost_contact() {
  up_.Set(0);
}

void node_metrics::show(const node_gauges& g) {
  requests_open_.Set(static_cast<double>(g.requests_open));
  waiting_cpu_.Set(static_cast<double>(g.steps_waiting));
  waiting_io_.Set(static_cast<double>(g.io_steps_waiting));
  oldest_waiting_.Set(seconds(g.oldest_waiting_ms));
  free_cpu_.Set(static_cast<double>(g.slots_free));
  free_io_.Set(static_cast<double>(g.io_slots_free));
  running_.Set(static_cast<double>(g.builds_running));
  actors_there_.Set(static_cast<double>(g.actors));
}

prometheus::Labels node_metrics::actor_of(const farm_event& e) {
  auto label = actor_label(e.actor);
  if (actors_.size() >= actors_max && !actors_.contains(label)) label = "other";
  actors_.emplace(label, label);
  return {{"actor", label}};
}

void node_metrics::count(const farm_event& e) {
  const auto bytes = static_cast<double>(e.bytes);
  switch (e.kind) {
  case event_kind::request_accepted: return requests_accepted_.Increment();
  case event_kind::request_ended:
    requests_ended_.Add({{"state", std::string(to_string(e.outcome))}}).Increment();
    return request_seconds_.Observe(seconds(e.duration_ms));
  case event_kind::step_ended:
    steps_ended_.Add({{"result", std::string(to_string(e.step))}}).Increment();
    if (e.step == step_state::reused) cache_hits_.Add({{"source", "farm"}}).Increment();
    return;
  case event_kind::attempt_started: return attempts_.Increment();
  case event_kind::attempt_ended:
    builds_.Add({{"result", std::string(to_string(e.failure))}}).Increment();
    // what ended for a passing reason may have had no builder; any other one may have taken less than a millisecond
    if (e.duration_ms > 0 || !is_transient(e.failure)) build_seconds_.Observe(seconds(e.duration_ms));
    return built_bytes_.Increment(bytes);
  case event_kind::upload_ended: uploads_.Increment(); return uploaded_bytes_.Increment(bytes);
  case event_kind::upload_partial: return uploads_deferred_.Increment();
  case event_kind::published: return published_.Increment();
  case event_kind::substituted:
    cache_hits_.Add({{"source", "upstream"}}).Increment();
    return substituted_bytes_.Increment(bytes);
  case event_kind::actor_died:
  case event_kind::actor_ended: return actor_deaths_.Add(actor_of(e)).Increment();
  case event_kind::actor_restarted: return actor_restarts_.Add(actor_of(e)).Increment();
  case event_kind::actor_given_up: return actors_given_up_.Add(actor_of(e)).Increment();
  case event_kind::actor_escalated: return escalations_.Increment();
  case event_kind::reconciled: return corrections_.Increment(static_cast<double>(e.count));
  case event_kind::node_started:
  case event_kind::actor_started:
  case event_kind::step_waiting:
  case event_kind::step_started:
  case event_kind::upload_begun: return;
  }
}

std::string node_metrics::text() const {
  return prometheus::TextSerializer{}.Serialize(registry_.Collect());
}

} // namespace coppice::app
