#include "tests/sim/simulation.hpp"

#include "runtime/log.hpp"
#include "tests/sim/client.hpp"
#include "tests/sim/seeded_random.hpp"

#include <algorithm>

namespace coppice::sim {

using namespace std::chrono_literals;

namespace {

/// How long requests may take once nothing fails any more.
constexpr nanoseconds mended_max = 20min;
/// How long what is left behind may take to go.
constexpr nanoseconds rest_max = 3min;

std::set<fault> draw_faults(dice& d) {
  std::set<fault> kinds;
  const double each = d.chance(0.2) ? 0.6 : 0.25;
  for (std::size_t i = 0; i < faults_max; ++i)
    if (d.chance(each)) kinds.insert(static_cast<fault>(i));
  if (d.chance(0.9)) kinds.erase(fault::drift_beyond); // it excuses too much
  if (d.chance(0.9)) kinds.erase(fault::pause_watchdogs);
  return kinds;
}

std::map<std::string, build_script> draw_scripts(const workload& work, dice& d) {
  std::map<std::string, build_script> scripts;
  for (auto& s : work.steps()) {
    build_script b;
    b.at_least = d.between(10ms, 3s);
    b.at_most = b.at_least + (d.chance(0.2) ? 40s : 5s);
    b.fails = s.fails;
    b.dies = s.dies;
    if (d.chance(0.1)) b.starts_that_fail = 1;
    b.varies = !s.fixed && d.chance(0.3);
    scripts.emplace(s.name, b);
  }
  return scripts;
}

farm_options draw_farm(const simulation_options& o, const workload& work, const std::set<fault>& kinds, dice& d) {
  farm_options f;
  f.seed = d.seed();
  f.members = d.between(1, 3);
  f.hub_slots = static_cast<std::uint32_t>(d.between(f.members > 1 ? 0 : 1, 2));
  f.member_slots = static_cast<std::uint32_t>(d.between(1, 2));
  if (kinds.contains(fault::drift)) f.rate_error = 0.005;
  if (kinds.contains(fault::drift_beyond)) f.rate_error = 0.1;
  if (d.chance(0.5)) f.lease = {10s, 2s, 500ms, 20s};
  // what always dies must come to an end; where nothing does, no number of faults may be taken for that
  const auto& steps = work.steps();
  if (std::none_of(steps.begin(), steps.end(), [](auto& s) { return s.dies; })) {
    f.policy.poison_max = 1'000'000;
    f.policy.attempts_max = 1'000'000;
  }
  f.scripts = draw_scripts(work, d);
  f.disks_forget = kinds.contains(fault::power_cut);
  f.broken = o.broken;
  f.prints = o.prints;
  return f;
}

/// A run from its beginning to its end.
class run {
public:
  explicit run(const simulation_options& o)
      : options_(o)
      , dice_(o.seed)
      , work_(workload_of(o.seed))
      , kinds_(draw(o))
      , farm_(draw_farm(o, work_, kinds_, dice_))
      , nemesis_(farm_, kinds_, dice_.seed()) {
    for (auto& r : work_.requests())
      clients_.push_back(std::make_unique<client>(farm_, r, "client" + std::to_string(clients_.size()), dice_.seed()));
  }

  outcome play() {
    if (options_.prints)
      rt::log::divert([this](rt::log::level, std::string_view actor, std::string_view text) {
        farm_.time.tell("  {}: {}", actor, text);
      });
    try {
      for (auto& m : farm_.machines())
        farm_.start(*m);
      suffer();
      recover();
    } catch (const std::exception& e) {
      farm_.watcher.broken("the run broke off", e.what());
    }
    if (options_.prints) rt::log::divert({});
    return tell();
  }

private:
  std::set<fault> draw(const simulation_options& o) {
    auto kinds = draw_faults(dice_);
    kinds.insert(o.surely.begin(), o.surely.end());
    return o.faults ? kinds : std::set<fault>{};
  }

  bool all_over() const {
    return std::all_of(clients_.begin(), clients_.end(), [](auto& c) { return c->over(); });
  }

  void suffer() {
    const auto lasts = dice_.between(20s, 90s);
    for (auto& c : clients_) {
      c->begin(dice_.between(0ns, lasts / 2));
      if (dice_.chance(0.1)) c->cancel(dice_.between(0ns, lasts));
    }
    if (options_.faults) nemesis_.begin(dice_.between(1s, 15s));
    farm_.run_until([this, lasts] { return all_over() && !options_.faults; }, lasts);
    nemesis_.heal();
  }

  void recover() {
    if (!farm_.run_until([this] { return all_over(); }, farm_.time.now() + mended_max))
      for (auto& c : clients_)
        if (!c->over()) farm_.watcher.broken("INV-2", "the request of " + c->name() + " does not end");
    if (!all_over()) return;
    for (auto& c : clients_) {
      results_ += describe(*c);
      judge(*c);
      c->forget();
    }
    if (!farm_.run_until([this] { return all_over(); }, farm_.time.now() + mended_max))
      farm_.watcher.broken("INV-5", "a request that is over is not answered again");
    std::string left;
    for (const auto end = farm_.time.now() + rest_max; !(left = left_now()).empty() && farm_.time.now() < end;)
      farm_.run_for(1s);
    if (!left.empty()) farm_.watcher.broken("INV-11", left);
    farm_.watcher.at_rest(farm_.ledger.rows());
    check_local_stores();
  }

  /// What is left behind, and goes within moments.
  std::string left_now() {
    std::string left;
    for (auto& row : farm_.ledger.rows().held_locks({{}, 100}))
      left += "lock " + std::string{row.drv.name()} + " is " + store::describe(row) + "; ";
    if (!farm_.ledger.rows().outbox(1).empty()) left += "something waits to be published; ";
    for (auto& m : farm_.machines()) {
      if (m->builders->running() > 0) left += "builders run on " + m->name + "; ";
      if (m->runs() && !test::need(m->process->kept().list()).entries.empty())
        left += "outputs are kept on " + m->name + "; ";
      if (m->runs() && !m->process->local().pins().empty()) left += "pins on " + m->name + "; ";
    }
    return left;
  }

  // INV-16: what a machine takes to be valid is what its record says.
  void check_local_stores() {
    for (auto& m : farm_.machines()) {
      if (!m->runs()) continue;
      auto& local = m->process->local();
      for (auto& path : local.paths()) {
        nix::hasher hash{nix::hash_algo::sha256};
        auto dumped = store::dump_path(local.real_path(path), [&](std::string_view bytes) -> expected<void> {
          hash.update(bytes);
          return {};
        });
        const auto found = hash.finish().sha256();
        if (!dumped || found != local.query(path)->nar_hash.bytes)
          farm_.watcher.broken("INV-16", path.to_string() + " on " + m->name + " is not what its record says");
      }
    }
  }

  /// What is the same whatever happens (INV-19): not what varying builders make, nor what a cancel met.
  std::string describe(const client& c) const {
    auto& r = *c.result();
    if (c.wanted_cancelled()) return c.name() + " wanted no more\n";
    auto text = fmt::format("{} {}\n", c.name(), to_string(r.state));
    for (auto& root : r.roots) {
      const bool doomed = work_.by_drv(root.drv)->doomed;
      text += fmt::format("  {} {}", root.drv.name(), doomed ? "doomed" : to_string(root.failure));
      for (auto& o : root.outputs)
        text += fmt::format(" {}={}", o.name, o.info.path.base_name());
      text += "\n";
    }
    return text;
  }

  /// What the graph of derivations says that must come of a request.
  void judge(const client& c) {
    auto& r = *c.result();
    auto wrong = [&](const std::string& what) {
      farm_.watcher.broken("INV-19", c.name() + ": " + what + "\n" + describe(c));
    };
    if (c.wanted_cancelled()) return;
    if (r.state == request_state::cancelled) return wrong("cancelled by nobody");
    for (auto& root : r.roots) {
      auto& step = *work_.by_drv(root.drv);
      if (step.doomed && root.failure == failure::none) wrong(step.name + " cannot succeed");
      if (!step.doomed && root.failure != failure::none && !may_fail(root.failure))
        wrong(step.name + " cannot fail so");
      if (!step.doomed && root.failure == failure::none &&
          (root.outputs.size() != 1 || root.outputs[0].info.path != step.out))
        wrong(step.name + " has another output");
    }
    const bool failed =
        std::any_of(r.roots.begin(), r.roots.end(), [](auto& root) { return root.failure != failure::none; });
    if (failed != (r.state == request_state::failed)) wrong("its state is not what its roots say");
  }

  /// Where tries are few, faults may use them up.
  bool may_fail(failure f) const {
    const bool few = std::any_of(work_.steps().begin(), work_.steps().end(), [](auto& s) { return s.dies; });
    return few && (is_transient(f) || f == failure::poisoned || f == failure::dependency_failed);
  }

  outcome tell() {
    outcome out;
    out.hash = farm_.hash();
    out.violations = farm_.watcher.violations();
    out.results = results_;
    out.lasted = farm_.time.now();
    out.transactions = farm_.watcher.transactions();
    out.changes = farm_.watcher.changes();
    out.builds = farm_.watcher.builds_made();
    out.carried = farm_.net.carried;
    out.lost = farm_.net.lost;
    out.repeated = farm_.net.repeated;
    for (std::size_t i = 0; i < faults_max; ++i)
      out.faults[i] = nemesis_.count(static_cast<fault>(i));
    return out;
  }

  const simulation_options options_;
  dice dice_;
  const workload& work_;
  const std::set<fault> kinds_;
  farm farm_;
  nemesis nemesis_;
  std::vector<std::unique_ptr<client>> clients_;
  std::string results_;
};

} // namespace

outcome simulate(const simulation_options& o) {
  seed_random_ids(o.seed);
  return run{o}.play();
}

std::string replay_command(std::uint64_t seed) {
  return "COPPICE_SIM_SEED=" + std::to_string(seed) + " test_sim 'any seed*'";
}

} // namespace coppice::sim
