#pragma once

#include "messages/ledger.hpp"
#include "messages/pipeline.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace coppice::actors {

/// One try at a job under one token, from the assignment to the commit. Decides what WORKER does next; each answer
/// that is lost is asked for again (R2), so every stage can say its order twice.
class attempt {
public:
  enum class stage : std::uint8_t {
    fetching,   ///< inputs are made present
    starting,   ///< T6: the worker's own token is asked for
    building,   ///< the builder runs, or stands still
    resuming,   ///< T9: likewise, and the token may be lost
    packing,    ///< outputs are read once: hashes, references, compressed bytes
    keeping,    ///< outputs are registered in the local store and journalled: from here on they are not lost (INV-12)
    storing,    ///< blobs are put into the store, however often it takes
    committing, ///< T11
    failing,    ///< T12
    releasing,  ///< T7
    reclaiming, ///< T9: the token was lost with the output in hand
    over
  };
  static std::string_view to_string(stage s);
  /// Tries to make the inputs present, one per tick, before the attempt fails of them.
  static constexpr unsigned fetches_max = 5;

  struct fetch {};
  struct start {
    fence token;
  };
  struct run {};
  /// End the builder; its exit is still told.
  struct kill {
    failure why;
    std::string reason;
  };
  struct pack {};
  struct keep {
    std::vector<realised_output> outputs;
  };
  struct store {};
  struct commit {
    fence token;
    std::vector<realised_output> outputs;
    build_usage usage;
  };
  struct partial {
    fence token;
  };
  struct fail {
    fence token;
    failure kind;
    std::string reason, log_tail;
    build_usage usage;
    std::vector<nix::store_path> missing;
  };
  struct release {
    fence token;
    failure why;
    std::string reason;
    build_usage usage;
  };
  struct reclaim {
    bool built;
  };
  /// The builder may run until then: lease_term::until_ms.
  struct extend {
    std::int64_t until_ms;
  };
  /// The CPU slot is free from now on.
  struct free_slot {};
  /// Scratch, pins and the kept entry are not needed any more; nor are the outputs, unless they were committed.
  struct discard {
    bool committed;
  };
  /// The last one.
  struct end {};
  using effect =
    std::variant<fetch, start, run, kill, pack, keep, store, commit, partial, fail, release, reclaim, free_slot, discard, end,
                 extend>;
  using effects = std::vector<effect>;

  /// A fresh assignment under the coordinator's token. One that only `compares` keeps and stores nothing: it commits
  /// what is registered, or fails.
  explicit attempt(fence coordinators, bool compares = false) : token_(coordinators), compares_(compares) {}
  /// Outputs of an earlier process that the journal of kept outputs remembers.
  attempt(fence last, std::vector<realised_output> kept)
    : stage_(stage::reclaiming), token_(last), outputs_(std::move(kept)), slot_freed_(true) {}

  effects begin();
  effects on_fetched();
  /// Tries again at the next on_tick(), fetches_max times in all.
  effects on_fetch_failed(const error& e);
  /// Inputs that no store has, at least one: another try can only help once they were built again. `why` is of the
  /// first.
  effects on_missing(std::vector<nix::store_path> paths, const std::string& why);
  /// An answer to start or reclaim; the node's lease as it was before that was asked.
  effects on_token(fence mine, lease_term lease);
  /// The node's lease as it is now. A builder is extended within the lease under which its token was got; after the
  /// session was opened anew, the token may be lost.
  effects on_lease(lease_term lease);
  effects on_exited(const build_exit& e, std::string log_tail);
  effects on_packed(std::vector<realised_output> outputs);
  /// It compares, and the outputs came out as those that are registered, which are these.
  effects on_same(std::vector<realised_output> registered);
  /// The outputs break a rule, or cannot be read; or the stage could not be begun.
  effects on_rejected(failure kind, std::string reason);
  effects on_kept();
  effects on_stored(std::vector<realised_output> outputs);
  effects on_store_failed();
  /// T7, T11 or T12 is done.
  effects on_settled();
  /// A transaction was refused, or its answer was lost; asks again at the next on_tick() if that may help.
  effects on_refused(const error& e);
  /// An operator gives the built outputs up; false if there are none that can be, or they are not held under this
  /// token (or, once it is lost, an older one).
  bool may_drop(fence token) const;
  effects on_dropped(std::string reason);
  /// Its machine is about to stop. A build that cannot be kept is given back, and counts against nobody; what is built
  /// goes on as ever, or after the next start.
  effects on_stop(std::string reason);
  /// The row changed: a newer token means that this attempt counts no more (INV-9), unless it only waits for a worker.
  effects on_row(const ledger::lock_state& row);
  /// Says the present order again if its answer was lost.
  effects on_tick();

  stage at() const { return stage_; }
  fence token() const { return token_; }
  /// Until when the builder may run.
  lease_term lease() const { return lease_; }
  const std::vector<realised_output>& outputs() const { return outputs_; }

private:
  effects enter(stage s);
  effects order() const;
  bool asks() const;
  effects finish();
  effects lose();
  effects give_back();
  bool is_idle(const ledger::lock_state& row) const;

  stage stage_ = stage::fetching;
  fence token_;
  lease_term lease_; ///< under which the token was got
  std::vector<realised_output> outputs_;
  failure kind_ = failure::none;
  std::string reason_, log_tail_;
  std::optional<std::pair<build_exit, std::string>> exit_; ///< while resuming: the builder's, and its log's tail
  build_usage usage_; ///< of the builder, once it ended
  std::vector<nix::store_path> missing_;
  unsigned fetches_failed_ = 0;
  std::optional<std::string> stopping_; ///< why
  bool compares_ = false;
  bool slot_freed_ = false, lost_answer_ = false, told_partial_ = false, killed_ = false, committed_ = false;
};

} // namespace coppice::actors
