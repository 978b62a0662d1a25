#include "actors/place/placement.hpp"
#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"

#include <fmt/core.h>

#include <queue>
#include <random>

/// What ALLOCATOR decides on a farm of many machines, in virtual time: each offers itself every five seconds and whenever a
/// build ends, and each job that waits is placed again by its GRAPH every five seconds.
namespace {

using namespace coppice;
using namespace std::chrono_literals;
using actors::placement;
using instant = placement::time_point;

struct settings {
  bool json = false, small = false;
  std::size_t waiting = 10'000; // five GRAPHs of one kind, at least
  int seconds = 60;
};
constexpr std::uint32_t slots = 8;
constexpr auto repeated = 5s;

/// One machine in ten has another system, one in four can do more.
std::string system_of(std::size_t i) { return i % 10 == 9 ? "aarch64-linux" : "x86_64-linux"; }
std::vector<std::string> features_of(std::size_t i) {
  return i % 4 == 3 ? std::vector<std::string>{"kvm"} : std::vector<std::string>{};
}

class farm {
public:
  farm(std::size_t machines, std::size_t waiting) : waiting_(waiting), running_(machines) {
    for (std::size_t i = 0; i < machines; ++i)
      at(now_ + phase(), [this, i] { repeat_offer(i); });
    while (jobs_ < waiting_) add_job();
    at(now_ + 1s, [this] { tick(); });
  }

  void run(std::chrono::nanoseconds d) {
    const auto end = now_ + d;
    while (!events_.empty() && events_.top().when <= end) {
      auto next = events_.top();
      events_.pop();
      now_ = next.when;
      next.what();
    }
    now_ = end;
  }
  std::uint64_t assigned() const { return assigned_; }

private:
  struct event {
    instant when;
    std::uint64_t order;
    std::function<void()> what;
    bool operator<(const event& other) const { return std::tie(other.when, other.order) < std::tie(when, order); }
  };
  void at(instant when, std::function<void()> f) { events_.push({when, ++order_, std::move(f)}); }
  std::chrono::milliseconds phase() { return std::chrono::milliseconds{random_() % 5'000}; }

  void offer_of(std::size_t i) {
    offer o{{"m" + std::to_string(i)}, {1}, slots - running_[i], slots, {system_of(i)}, features_of(i)};
    placement_.on_offer(o, now_, effects_);
    perform();
  }
  void repeat_offer(std::size_t i) {
    offer_of(i);
    at(now_ + repeated, [this, i] { repeat_offer(i); });
  }
  void tick() {
    placement_.tick(now_, effects_);
    perform();
    at(now_ + 1s, [this] { tick(); });
  }
  /// It is like some machine's.
  void add_job() {
    job j;
    const auto like = random_() % 1'000;
    for (std::size_t b = 0; b < 8; ++b)
      j.key.bytes[b] = static_cast<std::uint8_t>(births_ >> (8 * b));
    j.token = {++births_};
    j.system = system_of(like);
    j.features = features_of(like);
    j.critical_path = static_cast<std::uint32_t>(random_() % 100);
    ++jobs_;
    place(std::move(j));
  }
  void place(job j) {
    placement_.add(j, now_, effects_);
    perform();
    if (!placement_.knows(j.key)) return;
    j.again = true;
    at(now_ + repeated, [this, j = std::move(j)] {
      if (placement_.knows(j.key)) place(j);
    });
  }
  void perform() {
    if (performing_) return;
    performing_ = true;
    for (std::size_t i = 0; i < effects_.size(); ++i) {
      const auto* a = std::get_if<placement::assign>(&effects_[i]);
      if (!a) continue;
      const auto m = std::stoul(a->node.value.substr(1));
      ++running_[m];
      ++assigned_;
      --jobs_;
      placement_.on_assigned(a->job.key, a->job.token, true, now_);
      placement_.remove(a->job.key, a->job.token); // its build has begun
      at(now_ + std::chrono::milliseconds{30'000 + random_() % 60'000}, [this, m] {
        --running_[m];
        offer_of(m);
      });
      at(now_ + 1ms, [this] {
        if (jobs_ < waiting_) add_job();
      });
    }
    effects_.clear();
    performing_ = false;
  }

  placement placement_{placement::options{}};
  placement::effects effects_;
  std::priority_queue<event> events_;
  const std::size_t waiting_;
  std::vector<std::uint32_t> running_; ///< by machine
  std::size_t jobs_ = 0;               ///< that wait
  std::uint64_t births_ = 0, order_ = 0, assigned_ = 0;
  bool performing_ = false;
  instant now_{1h};
  std::mt19937_64 random_{1};
};

std::vector<bench::row> measure(const settings& s) {
  std::vector<bench::row> rows;
  for (const std::size_t machines : {10, 100, 1'000}) {
    if (s.small && machines > 10) break;
    farm f{machines, s.waiting};
    auto cpu = bench::own_cpu_s();
    f.run(30s); // as after a takeover: all jobs come, then all machines, and all slots fill
    const auto filled = f.assigned();
    rows.push_back({fmt::format("placement_{}_start", machines), (bench::own_cpu_s() - cpu) * 1e3, "ms"});
    cpu = bench::own_cpu_s();
    f.run(std::chrono::seconds{s.seconds});
    const auto share = (bench::own_cpu_s() - cpu) / s.seconds;
    rows.push_back({fmt::format("placement_{}_cores", machines), share, "cores", 1.0, bench::at_most(0.25)});
    rows.push_back({fmt::format("placement_{}_rate", machines),
                    static_cast<double>(f.assigned() - filled) / s.seconds, "jobs/s"});
  }
  return rows;
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"What deciding where jobs go costs on farms of 10, 100 and 1,000 machines that build a minute each, with ten "
               "thousand jobs waiting: CPU time for each second of such a farm, as a share of the one thread that there is."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_option("--waiting", s.waiting, "jobs")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--seconds", s.seconds, "of the farm's time, after its slots were filled")->capture_default_str()->check(CLI::PositiveNumber);
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) s.waiting = 500, s.seconds = 5;
    bench::print(measure(s), s.json);
    return {};
  });
}
