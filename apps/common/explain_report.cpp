#include "apps/common/admin_report.hpp"
#include "apps/common/display.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::app {
namespace {

using nlohmann::json;

std::string since(std::int64_t ms) {
  return duration_text(std::chrono::milliseconds{ms});
}

bool is_held(const explanation& e) {
  return e.lock && e.lock->phase != ledger::phase::free && e.lock->phase != ledger::phase::realised;
}

std::string life_text(step_life l) {
  switch (l) {
  case step_life::unknown:
  case step_life::asked: return "not looked at yet";
  case step_life::wanted: return "waits for its own inputs";
  case step_life::ready:
  case step_life::acquiring: return "ready";
  case step_life::delayed: return "waits for its next try";
  case step_life::waiting: return "another request has it";
  case step_life::queued: return "waits for a machine";
  case step_life::building: return "building";
  case step_life::done: return "built";
  case step_life::failed: return "failed";
  case step_life::not_attempted: return "not attempted";
  }
  return "?";
}

std::string state_of(const step_view& v, const explanation& e) {
  if (v.upstream && v.life == step_life::waiting) return "fetching";
  switch (v.life) {
  case step_life::unknown:
  case step_life::asked: return v.key.empty() || v.life == step_life::asked ? "planning" : "not_wanted";
  case step_life::wanted: return v.inputs_count > 0 ? "waits_for_inputs" : "planning";
  case step_life::ready:
  case step_life::acquiring: return "waits_for_lock";
  case step_life::delayed: return "retry";
  case step_life::waiting:
    if (e.lock && e.lock->phase == ledger::phase::realised) return "publishing";
    return e.place && e.place->job ? "queued" : "waits_for_lock";
  case step_life::queued: return "queued";
  case step_life::building: return "building";
  case step_life::done: return "built";
  case step_life::failed: return "failed";
  case step_life::not_attempted: return "not_attempted";
  }
  return "unknown";
}

const step_view* view_of(const explanation& e) {
  return e.requests.empty() ? nullptr : &e.requests.front();
}

std::string headline(const explanation& e, const std::string& state) {
  const auto* v = view_of(e);
  if (state == "unknown") return "no open request wants it, and nobody has tried to build it";
  if (state == "built") return "it is built";
  if (state == "planning") return "the request that wants it is being planned";
  if (state == "not_wanted")
    return v ? "nobody needs it built: what depends on it is there" : "no open request wants it";
  if (state == "waits_for_inputs") return fmt::format("it waits for {}", counted(v->inputs_count, "input", "inputs"));
  if (state == "publishing") return "it is built, and is being published";
  if (state == "fetching") return "it is being fetched from an upstream cache";
  if (state == "retry")
    return fmt::format("its last try came to nothing; the next one is in {}", since(v->retry_in_ms));
  if (state == "building") return "it is being built";
  if (state == "not_attempted") return "it is not attempted: an input failed";
  if (state == "waits_for_lock" && is_held(e)) return "somebody else holds its lock";
  if (state == "waits_for_lock" && v->life == step_life::ready)
    return fmt::format("it is ready, and waits behind {} of its request", counted(v->ready_ahead, "step", "steps"));
  if (state == "waits_for_lock") return "it is ready, and its lock is being asked for";
  if (state == "queued" && e.place && e.place->job)
    return fmt::format("it waits for a machine, as number {} of {}", e.place->job->position, e.place->total);
  if (state == "queued") return "a machine is being told to build it";
  return "it failed";
}

/// "  name      text", and nothing for an empty text.
class facts {
public:
  explicit facts(std::vector<std::string>& lines) : lines_(lines) {}
  void add(std::string_view name, const std::string& text) {
    if (text.empty()) return;
    lines_.push_back(fmt::format("  {:<12}{}", name == before_ ? "" : name, text));
    before_ = name;
  }

private:
  std::vector<std::string>& lines_;
  std::string before_;
};

void add_building(facts& f, const explanation& e) {
  const auto* v = view_of(e);
  if (v && v->running) {
    const auto& r = *v->running;
    f.add("building", fmt::format("on {} for {}: {}", cleaned(r.node.value), since(r.elapsed_ms),
                                  r.phase.empty() ? "building" : cleaned(r.phase)));
    if (!r.last_line.empty()) f.add("says", cleaned(r.last_line));
  }
  if (!is_held(e)) return;
  const auto& lock = *e.lock;
  auto text = fmt::format("{} under token {}", ledger::to_string(lock.phase), lock.token.value);
  if (!lock.node.empty()) text += " on " + cleaned(lock.node.value);
  auto started = std::find_if(e.attempts.begin(), e.attempts.end(), [&](auto& a) { return a.token == lock.token; });
  if (started != e.attempts.end())
    text += fmt::format(", since {} ({})", utc_text(started->started_ms), since(e.at_ms - started->started_ms));
  f.add("lock", text);
}

void add_place(facts& f, const placing& p) {
  if (p.job) {
    f.add("waiting", since(p.job->waiting_ms));
    for (const auto& ahead : p.ahead)
      f.add("ahead", fmt::format("{} (priority {}, {} above it)", short_name(ahead.drv), ahead.priority,
                                 counted(ahead.critical_path, "step", "steps")));
    if (p.job->position > p.ahead.size() + 1)
      f.add("ahead", fmt::format("… and {} more", p.job->position - 1 - p.ahead.size()));
  }
  for (const auto& m : p.machines)
    f.add("machine", fmt::format("{} {}", cleaned(m.node.value), m.why.empty() ? "can take it now" : cleaned(m.why)));
  if (p.machines.empty()) f.add("machine", "none offers itself");
}

void add_history(facts& f, const explanation& e) {
  for (const auto& failed : e.failures)
    f.add("failed", fmt::format("{} ({} counted{}): {}", to_string(failed.failure), failed.count,
                                failed.remembered ? ", later requests are answered with it" : "",
                                cleaned(failed.reason.substr(0, failed.reason.find('\n')))));
  for (const auto& a : e.attempts)
    f.add("attempt", fmt::format("{} on {} at {}{}", attempt_result(a), cleaned(a.node.value), utc_text(a.started_ms),
                                 a.reason.empty() ? "" : ": " + cleaned(a.reason.substr(0, a.reason.find('\n')))));
}

json view_json(const step_view& v, const explanation& e) {
  auto inputs = json::array(), outputs = json::array();
  for (const auto& input : v.inputs)
    inputs.push_back({{"drv", input.drv.to_string()}, {"state", to_string(input.life)}});
  for (const auto& output : v.outputs)
    outputs.push_back(output.to_string());
  json out{{"request", v.request.to_string()},
           {"client", v.client},
           {"state", state_of(v, e)},
           {"waits_for", v.inputs_count},
           {"inputs", std::move(inputs)},
           {"ready_ahead", v.ready_ahead},
           {"retry_in_s", static_cast<double>(v.retry_in_ms) / 1000},
           {"system", v.system},
           {"features", v.features},
           {"io_bound", v.io_bound},
           {"failure", to_string(v.failure)},
           {"text", v.text},
           {"outputs", std::move(outputs)}};
  if (v.running)
    out["running"] = {{"node", v.running->node.value},
                      {"token", v.running->token.value},
                      {"elapsed_s", static_cast<double>(v.running->elapsed_ms) / 1000},
                      {"phase", v.running->phase},
                      {"last_line", v.running->last_line}};
  return out;
}

json place_json(const placing& p) {
  auto ahead = json::array(), machines = json::array();
  for (const auto& job : p.ahead)
    ahead.push_back(queued_job_json(job));
  for (const auto& m : p.machines)
    machines.push_back({{"node", m.node.value}, {"why", m.why}});
  json out{{"total", p.total}, {"ahead", std::move(ahead)}, {"machines", std::move(machines)}};
  out["position"] = p.job ? json(p.job->position) : json();
  return out;
}

} // namespace

std::string explained_state(const explanation& e) {
  if (e.lock && e.lock->phase == ledger::phase::realised) return e.lock->published ? "built" : "publishing";
  if (const auto* v = view_of(e)) return state_of(*v, e);
  if (is_held(e)) return e.lock->phase == ledger::phase::queued ? "queued" : "building";
  if (!e.stored.empty()) return "built";
  if (!e.failures.empty()) return "failed";
  return e.attempts.empty() ? "unknown" : "not_wanted";
}

std::vector<std::string> explanation_lines(const explanation& e, const nix::store_path& asked) {
  const auto state = explained_state(e);
  const auto* v = view_of(e);
  std::vector<std::string> lines;
  lines.push_back(fmt::format("{}: {}", short_name(e.drv.value_or(asked)), headline(e, state)));
  facts f(lines);
  f.add("derivation", e.drv ? e.drv->to_string() : "none is known that makes " + asked.to_string());
  for (const auto& r : e.requests)
    f.add("wanted by", fmt::format("request {} of {}{}", r.request.to_string(), cleaned(r.client),
                                   &r == v ? "" : ", where it is " + life_text(r.life)));
  if (e.requests_count > e.requests.size())
    f.add("wanted by", fmt::format("… and {} more", e.requests_count - e.requests.size()));
  if (v) {
    for (const auto& input : v->inputs)
      f.add("waits for", fmt::format("{}: {}", short_name(input.drv), life_text(input.life)));
    if (v->inputs_count > v->inputs.size())
      f.add("waits for", fmt::format("… and {} more", v->inputs_count - v->inputs.size()));
    f.add("because", cleaned(v->text.substr(0, v->text.find('\n'))));
    for (const auto& output : v->outputs)
      f.add("output", output.to_string());
  }
  if (e.lock)
    for (const auto& output : e.lock->outputs)
      if (!v || v->outputs.empty()) f.add("output", output.info.path.to_string());
  add_building(f, e);
  if (e.place) add_place(f, *e.place);
  add_history(f, e);
  f.add("as of", utc_text(e.at_ms));
  return lines;
}

json explanation_json(const explanation& e) {
  auto requests = json::array(), attempts = json::array(), failures = json::array();
  for (const auto& v : e.requests)
    requests.push_back(view_json(v, e));
  for (const auto& a : e.attempts)
    attempts.push_back(attempt_json(a));
  for (const auto& failed : e.failures)
    failures.push_back(failure_json(failed));
  const auto state = explained_state(e);
  json out{{"state", state},
           {"why", headline(e, state)},
           {"requests", std::move(requests)},
           {"requests_count", e.requests_count},
           {"attempts", std::move(attempts)},
           {"failures", std::move(failures)},
           {"as_of", static_cast<double>(e.at_ms) / 1000}};
  out["drv"] = e.drv ? json(e.drv->to_string()) : json();
  out["lock"] = e.lock ? lock_json(*e.lock) : json();
  out["place"] = e.place ? place_json(*e.place) : json();
  return out;
}

} // namespace coppice::app
