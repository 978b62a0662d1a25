#pragma once

#include "messages/pipeline.hpp"
#include "runtime/clock.hpp"

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace coppice::actors {

/// Which job goes to which machine. Decides; late binding: a job stays here until a machine with a free slot that
/// fits it has offered itself. Order: priority, critical path, age; then the inhash, so that it is total.
class placement {
public:
  using time_point = rt::boot_clock::time_point;

  struct options {
    std::chrono::milliseconds offer_ttl{15'000};    ///< an offer that is not repeated for so long is forgotten
    std::chrono::milliseconds assign_ttl{10'000};   ///< an assignment that is not seen to start by then is void
    std::size_t jobs_max = 1'000'000;               ///< waiting jobs; further ones are refused
  };
  /// Give this job to that machine; answer by on_assigned or on_refused.
  struct assign {
    node_id node;
    coppice::job job;
  };
  /// No machine that offers itself could ever take it; `why` names what it lacks.
  struct unplaceable {
    inhash key;
    std::string why;
  };
  using effect = std::variant<assign, unplaceable>;
  using effects = std::vector<effect>;

  explicit placement(options o) : options_(o) {}

  /// A job to be placed; repeated words change nothing, a higher priority is taken over. False if jobs_max wait.
  bool add(const coppice::job& j, time_point now, effects& out);
  /// Somebody else wants this job, too, with this priority; nothing if it does not wait here.
  void lend(const inhash& key, std::int32_t priority);
  /// No longer wanted under this token (or an older one).
  void remove(const inhash& key, fence token);
  /// What a machine can take now; replaces what it said before.
  void on_offer(const offer& o, time_point now, effects& out);
  /// The machine took it: it is seen to by its worker from now on.
  void on_assigned(const inhash& key, fence token);
  /// The machine could not take it: it is placed anew, and not there before the next offer.
  void on_refused(const inhash& key, fence token, const node_id& node, time_point now, effects& out);
  /// Forgets what is too old, and places what became free by that.
  void tick(time_point now, effects& out);

  std::size_t waiting() const { return queue_.size(); }
  std::size_t assigned() const { return jobs_.size() - queue_.size(); }
  std::size_t slots_free() const;

private:
  struct entry {
    coppice::job job;
    std::uint64_t age = 0;      ///< order of arrival
    bool assigned = false;
    time_point assigned_at;
    node_id node;
    bool told_unplaceable = false;
  };
  struct machine {
    offer what;
    time_point heard;
  };
  /// Smaller goes first.
  using rank = std::tuple<std::int64_t, std::int64_t, std::uint64_t, inhash>;
  static rank rank_of(const entry& e);
  /// Empty if the machine could take the job when it has a free slot, else what it lacks.
  static std::string lacks(const machine& m, const coppice::job& j);
  void place(time_point now, effects& out);
  void explain(entry& e, effects& out);

  options options_;
  std::map<inhash, entry> jobs_;
  std::set<rank> queue_; ///< of jobs not assigned
  std::map<node_id, machine> machines_;
  std::uint64_t arrivals_ = 0;
};

} // namespace coppice::actors
