#pragma once

#include "actors/place/holdings.hpp"
#include "messages/admin.hpp"
#include "messages/pipeline.hpp"
#include "runtime/clock.hpp"

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace coppice::actors {

/// Which job goes to which machine. Decides; late binding: a job stays here until a machine with a free slot that
/// fits it has offered itself. Order: priority, critical path, age; then the inhash, so that it is total. Of the machines
/// that fit, the one to which least has to be moved (see holdings), then the one with most free slots.
class placement {
public:
  using time_point = rt::boot_clock::time_point;

  struct options {
    std::chrono::milliseconds offer_ttl{15'000};    ///< an offer that is not repeated for so long is forgotten
    std::chrono::milliseconds assign_ttl{10'000};   ///< an assignment that is not seen to start by then is void
    /// A job that finds too few cores, memory or disk left beside free slots is overtaken by smaller ones for so long;
    /// then a machine takes nothing that computes but what is more urgent, until there is room for it.
    std::chrono::milliseconds overtaken_max{60'000};
    std::chrono::milliseconds taken_ttl{15'000};    ///< a taken job that is not placed again for so long is forgotten
    std::chrono::hours offline_ttl{30 * 24};        ///< then it is remembered no more
    std::size_t offline_max = 1'000;                ///< machines that are remembered without an offer, the latest ones
    std::size_t jobs_max = 1'000'000;               ///< waiting jobs; further ones are refused
    std::size_t prepared_max = 64;                  ///< the most urgent jobs, of which machines prepare one each
  };
  /// "Runnable and capacity" means assigned within this, whatever word is lost (reliability.md 5.1): longer than any
  /// of assign_ttl with a tick, GRAPH's repeat_interval and WORKER_POOL's offer_interval.
  static constexpr std::chrono::milliseconds assigned_within{12'000};

  /// Give this job to that machine; answer by on_assigned or on_refused.
  struct assign {
    node_id node;
    coppice::job job;
  };
  /// No machine that offers itself could ever take it; `why` names what they lack, and is empty once one could.
  /// `offline`: one could that is remembered.
  struct unplaceable {
    inhash key;
    std::string why;
    bool offline = false;
  };
  /// That machine took this job, and yet it is placed again: does it have it? Answer by on_assigned or on_refused.
  struct recheck {
    node_id node;
    coppice::job job;
  };
  /// All slots of that machine are busy, or it is kept for this job, and this job is likely to be its next: its inputs
  /// can be fetched meanwhile.
  struct prepare {
    node_id node;
    coppice::job job;
  };
  using effect = std::variant<assign, unplaceable, recheck, prepare>;
  using effects = std::vector<effect>;

  explicit placement(options o) : options_(o) {}

  /// A job to be placed; repeated words change nothing, a higher priority is taken over. False if jobs_max wait.
  bool add(const coppice::job& j, time_point now, effects& out);
  /// Somebody else wants this job, too, with this priority; nothing if it does not wait here.
  void lend(const inhash& key, std::int32_t priority);
  /// No longer wanted under this token (or an older one).
  void remove(const inhash& key, fence token);
  /// What a machine can take now; replaces what it said before. It answers an assignment before it offers again, so
  /// the offer knows nothing of those that are not answered: each of them takes a slot from it.
  void on_offer(const offer& o, time_point now, effects& out);
  /// The machine cannot be reached: it is given nothing until it offers itself again, and what it was told of and has not
  /// answered goes elsewhere at once.
  void on_gone(const node_id& node, time_point now, effects& out);
  /// The machine took it: it is seen to by its worker from now on. `fresh` if it had none for it before.
  void on_assigned(const inhash& key, fence token, bool fresh, time_point now);
  /// The machine could not take it: it is placed anew, and not there before the next offer. `full`: nor is anything
  /// else.
  void on_refused(const inhash& key, fence token, const node_id& node, bool full, time_point now, effects& out);
  /// The machine does not have (any more) what it took: the job is placed anew.
  void on_lost(const coppice::job& j, time_point now, effects& out);
  /// This machine offered itself then, before this ALLOCATOR was there: it is offline until it does again.
  void remember(const offer& o, time_point heard);
  /// Counts the machines that came, went or were forgotten.
  std::uint64_t comings() const { return comings_; }
  /// Forgets what is too old, and places what became free by that, or should have been placed before.
  void tick(time_point now, effects& out);

  std::size_t waiting() const { return queues_[0].size() + queues_[1].size(); }
  /// Of those that are io_bound, or of the others.
  std::size_t waiting(bool io_bound) const { return queues_[io_bound].size(); }
  /// When the job came that has waited longest; none if none waits.
  std::optional<time_point> oldest_waiting() const;
  std::size_t assigned() const { return jobs_.size() - waiting(); }
  /// Of all machines; for jobs that are io_bound, or for the others.
  std::size_t slots_free(bool io_bound) const;
  /// It waits here, or is on its way to a machine.
  bool knows(const inhash& key) const { return jobs_.contains(key); }
  /// How often a job would have waited for ever beside a free slot, had nobody repeated what they want.
  std::uint64_t corrections() const { return corrections_; }
  /// Why machines hold back slots that nothing runs in; empty if there is none, or nothing waits.
  std::string shortage() const;

  // for people
  /// What waits, most urgent first. Takes time for the offset.
  job_queue page(const get_queue& q, time_point now) const;
  /// The machines that offer themselves, and those that did.
  node_statuses machines(time_point now) const;
  /// Where a job waits, and why each machine does not take it.
  placing explain(const placing_query& q, time_point now) const;

private:
  struct entry {
    coppice::job job;
    std::uint64_t age = 0;      ///< order of arrival
    time_point since;           ///< of its arrival
    bool assigned = false;
    time_point assigned_at;
    node_id node;
    std::map<node_id, time_point> barred; ///< machines that refused it, and when the offer was heard that they did by
    bool told_unplaceable = false;
    bool lost = false; ///< whoever had it does not know of it
    capacity took = {};                  ///< if assigned: of what its machine offers
    std::optional<time_point> overtaken; ///< since then smaller ones go first
    std::optional<node_id> keeps = {};   ///< the machine that is kept for it
  };
  struct taken {
    fence token;
    node_id node;
    time_point heard;
  };
  struct machine {
    offer what;
    time_point heard, since; ///< last; and from when on it has offered itself, or not
    std::optional<inhash> prepares = {}; ///< the job that it was told to prepare for last
    std::array<std::uint32_t, 2> kept{}; ///< slots of the offer that wait for assignments made before it; [1] of io_bound
    std::optional<inhash> kept_for = {}; ///< the job that has been overtaken for too long
  };
  /// Smaller goes first.
  using rank = std::tuple<std::int64_t, std::int64_t, std::uint64_t, inhash>;
  static rank rank_of(const entry& e);
  static rank rank_of(const queue_place& p);
  /// Back into the queue, or into it for the first time.
  void enqueue(entry& e);
  void enter_queue(const entry& e);
  void leave_queue(const entry& e);
  /// What of a job a machine must have.
  struct demand {
    const std::string& system;
    const std::vector<std::string>& features;
    bool io_bound;
    const inhash& key;
  };
  static demand demand_of(const coppice::job& j) { return {j.system, j.features, j.io_bound, j.key}; }
  static capacity takes(const machine& m, const demand& d);
  /// Empty if the machine could take the job when it has a free slot, else why not, in words that follow its name.
  static std::string lacks(const machine& m, const demand& d);
  /// Empty if it could take it now.
  static std::string why_not(const machine& m, const demand& d);
  std::string why_none(const demand& d) const;
  queued_job describe(const entry& e, std::uint64_t position, time_point now) const;
  /// The slot of an assignment is free again.
  static void give_back(machine& m, const entry& e);
  /// What an assignment takes is left no more.
  static void reserve(machine& m, entry& e);
  struct search {
    machine* best = nullptr; ///< where the job has a free slot and room
    bool any_free = false;   ///< some machine has a free slot
    bool cramped = false;    ///< one lacks only room
    bool barred = false;     ///< one that could take it has refused this very job
  };
  search best_for(const entry& e);
  /// It is kept for another job.
  static bool spoken_for(const machine& m, const coppice::job& j);
  /// Keeps a machine for a job that has been overtaken for too long.
  void keep_one_for(entry& e, time_point now);
  /// The other side of slots_free in an offer.
  static std::uint32_t& slots_of(machine& m, bool io_bound);
  /// Free slots, as far as ordinary jobs fit into them.
  static std::uint32_t free_of(const machine& m, bool io_bound);
  std::set<rank>& queue_of(const entry& e) { return queues_[e.job.io_bound]; }
  const std::set<rank>& queue_of(const entry& e) const { return queues_[e.job.io_bound]; }
  std::set<inhash>& under_way(const entry& e) { return under_way_[e.node][e.job.io_bound]; }
  bool is_taken(const coppice::job& j, time_point now, effects& out);
  /// Its offer counts no more.
  void forget(std::map<node_id, machine>::iterator m, time_point now);
  void bound_offline();
  void place(time_point now, effects& out);
  void place(bool io_bound, time_point now, effects& out);
  /// Whether any machine could ever take such a job.
  struct verdict {
    std::string why;      ///< what each lacks; empty if one could
    bool offline = false; ///< one could that is remembered
  };
  verdict judge(const demand& d) const;
  void tell(entry& e, const verdict& v, effects& out);
  void tell_unplaceable(entry& e, effects& out);
  /// Of all that wait; a new machine is asked once for each kind.
  void tell_unplaceable(effects& out);
  void mark_told(entry& e, bool told);
  void prepare_next(effects& out);
  void prepare_next(bool io_bound, effects& out);

  options options_;
  std::map<inhash, entry> jobs_;
  std::array<std::set<rank>, 2> queues_; ///< of jobs not assigned; [1] of those that are io_bound
  /// What jobs of one queue differ by for machines: system and features.
  using kind = std::pair<std::string, std::vector<std::string>>;
  std::array<std::map<kind, std::set<rank>>, 2> kinds_; ///< the same jobs
  std::map<node_id, machine> machines_;
  std::map<node_id, machine> offline_; ///< as they were last heard
  std::map<node_id, std::array<std::set<inhash>, 2>> under_way_; ///< assignments not answered yet; [1] io_bound
  std::map<inhash, taken> taken_; ///< jobs that machines took; their GRAPHs repeat them until they are begun
  holdings holdings_;
  std::size_t told_ = 0; ///< jobs with told_unplaceable
  std::uint64_t arrivals_ = 0;
  std::uint64_t corrections_ = 0;
  std::uint64_t comings_ = 0;
};

} // namespace coppice::actors
