#pragma once

#include "messages/admin.hpp"
#include "messages/client.hpp"
#include "messages/ledger.hpp"
#include "messages/pipeline.hpp"

#include <caf/typed_actor.hpp>

/// Every typed actor interface, a comment per handler. Actors are CAPITALS in prose. No actor includes another
/// actor's header: it knows the handles here, and only actors/tree.cpp knows who stands behind them.
///
/// `reacts_to` is a hint that may be lost (level-triggered senders repeat it); `replies_to` is answered or fails
/// within the stable reference's deadline. A handler that takes a `caller` may be called from another machine
/// (runtime/exposed.hpp): atom, caller, one message struct; and answers with one message struct.
namespace coppice {

#define COPPICE_ATOM(name, text)                                                                                       \
  using name##_atom = caf::atom_constant<caf::atom(text)>;                                                             \
  inline constexpr name##_atom name##_v {}

namespace atom {
COPPICE_ATOM(transact, "transact");
COPPICE_ATOM(get, "get");
COPPICE_ATOM(acquire, "acquire");
COPPICE_ATOM(start, "start");
COPPICE_ATOM(release, "release");
COPPICE_ATOM(partial, "partial");
COPPICE_ATOM(reclaim, "reclaim");
COPPICE_ATOM(lease, "lease");
COPPICE_ATOM(extend, "extend");
COPPICE_ATOM(frozen, "frozen");
COPPICE_ATOM(commit, "commit");
COPPICE_ATOM(fail, "fail");
COPPICE_ATOM(watch, "watch");
COPPICE_ATOM(unwatch, "unwatch");
COPPICE_ATOM(changed, "changed");
COPPICE_ATOM(place, "place");
COPPICE_ATOM(withdraw, "withdraw");
COPPICE_ATOM(waiting, "waiting");
COPPICE_ATOM(offer, "offer");
COPPICE_ATOM(assign, "assign");
COPPICE_ATOM(ended, "ended");
COPPICE_ATOM(fetch, "fetch");
COPPICE_ATOM(prefetch, "prefetch");
COPPICE_ATOM(exited, "exited");
COPPICE_ATOM(output, "output");
COPPICE_ATOM(stop, "stop");
COPPICE_ATOM(packed, "packed");
COPPICE_ATOM(stored, "stored");
COPPICE_ATOM(progress, "progress");
COPPICE_ATOM(follow, "follow");
COPPICE_ATOM(open, "open");
COPPICE_ATOM(find, "find");
COPPICE_ATOM(poll, "poll");
COPPICE_ATOM(cancel, "cancel");
COPPICE_ATOM(submit, "submit");
COPPICE_ATOM(missing, "missing");
COPPICE_ATOM(info, "info");
COPPICE_ATOM(status, "status");
COPPICE_ATOM(log, "log");
COPPICE_ATOM(tree, "tree");
COPPICE_ATOM(attempts, "attempts");
COPPICE_ATOM(locks, "locks");
COPPICE_ATOM(durations, "durations");
COPPICE_ATOM(kill, "kill");
COPPICE_ATOM(events, "events");
COPPICE_ATOM(forget, "forget");
COPPICE_ATOM(failures, "failures");
COPPICE_ATOM(retry, "retry");
COPPICE_ATOM(tick, "tick");
COPPICE_ATOM(done, "done");
COPPICE_ATOM(failed, "failed");
COPPICE_ATOM(substitute, "substitute");
COPPICE_ATOM(import, "import");
COPPICE_ATOM(queue, "queue");
COPPICE_ATOM(nodes, "nodes");
COPPICE_ATOM(drain, "drain");
COPPICE_ATOM(partials, "partials");
COPPICE_ATOM(drop, "drop");
COPPICE_ATOM(gone, "gone");
COPPICE_ATOM(explain, "explain");
} // namespace atom
#undef COPPICE_ATOM

using caf::reacts_to;
using caf::replies_to;

/// Whoever wants to know that an inhash's row changed: GRAPH, WORKER.
using lock_watcher_actor = caf::typed_actor<
  /// The row as it was when the change became durable; act on it only through a transaction (R1).
  reacts_to<atom::changed_atom, ledger::lock_state>>;

/// Whoever is told what changed in the ledger: LOCK_MANAGER, GRAPH_KEEPER, PUBLISHER, the LEDGERs of members.
using ledger_watcher_actor = caf::typed_actor<
  /// The rows that one durable batch changed; hints, which may be lost.
  reacts_to<atom::changed_atom, ledger::changed>>;

/// What other nodes may say to the LEDGER of the hub.
using farm_ledger_actor = caf::typed_actor<
  /// As below.
  replies_to<atom::transact_atom, ledger::transaction>::with<ledger::answer>,
  /// From a member, repeated: it wants to hear of what its session holds.
  reacts_to<atom::watch_atom, watch_ledger, ledger_watcher_actor>>;

/// Runs transactions on the durable ledger, in batches, and reports changes.
using ledger_actor = caf::typed_actor<
  /// Answers once the transaction is durable, or with the error that says which condition did not hold.
  replies_to<atom::transact_atom, ledger::transaction>::with<ledger::answer>,
  // INTERNAL: a batch is durable
  reacts_to<atom::done_atom>,
  // INTERNAL: end the leases that were not renewed
  reacts_to<atom::tick_atom>>;

/// Keeps this node's lease alive.
using session_actor = caf::typed_actor<
  /// This node's session; waits until it is open.
  replies_to<atom::get_atom>::with<session_info>,
  /// The node's lease as it is, open or not.
  replies_to<atom::lease_atom>::with<lease_term>,
  // INTERNAL: renew the lease
  reacts_to<atom::tick_atom>>;

/// Grants, transfers and ends inhash locks, and wakes those who wait.
using lock_manager_actor = caf::typed_actor<
  /// T5. Answers `granted` or the row that says why not; the watcher hears of the row's changes from now on.
  replies_to<atom::acquire_atom, acquire_lock, lock_watcher_actor>::with<ledger::answer>,
  /// The rows as they are; the watcher hears of their changes from now on.
  replies_to<atom::watch_atom, std::vector<inhash>, lock_watcher_actor>::with<ledger::lock_states>,
  /// T6, for a WORKER, which hears of the row's changes from now on.
  replies_to<atom::start_atom, start_attempt, lock_watcher_actor>::with<granted_lock>,
  /// T7.
  replies_to<atom::release_atom, ledger::release>::with<ledger::done>,
  /// T8.
  replies_to<atom::partial_atom, ledger::partial>::with<ledger::done>,
  /// T9.
  replies_to<atom::reclaim_atom, reclaim_lock, lock_watcher_actor>::with<granted_lock>,
  /// T11.
  replies_to<atom::commit_atom, ledger::commit>::with<ledger::done>,
  /// T12.
  replies_to<atom::fail_atom, ledger::fail_attempt>::with<ledger::done>,
  /// The watcher wants to hear no more of this inhash.
  reacts_to<atom::unwatch_atom, inhash, lock_watcher_actor>,
  /// From LEDGER: wakes the watchers of what changed.
  reacts_to<atom::changed_atom, ledger::changed>>;

/// Walks one request's build graph until its roots are realised or cannot be.
using graph_actor = lock_watcher_actor::extend<
  /// From OBSERVATORY: what a build of this graph is doing.
  reacts_to<atom::progress_atom, step_progress>,
  /// From ALLOCATOR: why a job can never be placed, or why no job of it can be placed now.
  reacts_to<atom::waiting_atom, waiting>,
  /// Progress since the last poll; waits for news up to the poll's wait_ms.
  replies_to<atom::poll_atom, poll_request>::with<request_progress>,
  /// Why this derivation, or the one that has this output, is not built yet.
  replies_to<atom::explain_atom, explain_query>::with<step_answer>,
  /// The request's row changed: if it is over, the graph ends.
  reacts_to<atom::stop_atom>,
  // INTERNAL: repeat what was asked and not answered; answer polls that waited long enough
  reacts_to<atom::tick_atom>>;

/// Owns the requests of this node, and adopts those whose owner died.
using graph_keeper_actor = caf::typed_actor<
  /// Adopt this request now.
  reacts_to<atom::open_atom, request_id>,
  /// The GRAPH of this request; not_found if it is not owned here.
  replies_to<atom::find_atom, request_id>::with<graph_actor>,
  /// From LEDGER: rows of requests changed.
  reacts_to<atom::changed_atom, ledger::changed>,
  // INTERNAL: look for requests nobody owns
  reacts_to<atom::tick_atom>>;

/// What ALLOCATORs of any node may say to a WORKER_POOL.
using assignee_actor = caf::typed_actor<
  /// Start a WORKER for this job; false if it has one already; overloaded if no slot is free now.
  replies_to<atom::assign_atom, job>::with<bool>,
  /// All slots are busy, and this may be built here next.
  reacts_to<atom::prefetch_atom, prefetch>>;

/// What INSPECTORs of any node may say to a WORKER_POOL.
using machine_actor = caf::typed_actor<
  /// Take no more work from now on, or take it again. Answered when that is remembered and offered.
  replies_to<atom::drain_atom, drain_node>::with<ledger::done>,
  /// What is built here and not committed.
  replies_to<atom::partials_atom, get_partials>::with<partial_outputs>,
  /// Upload it now; not_found if nothing here waits to try again.
  replies_to<atom::retry_atom, retry_partial>::with<ledger::done>,
  /// Give it up; not_found or stale if it is not there under this token.
  replies_to<atom::drop_atom, drop_partial>::with<ledger::done>>;

/// Offers this machine's free slots and turns an assignment into a WORKER.
using worker_pool_actor = assignee_actor::extend_with<machine_actor>::extend<
  /// From WORKER, at birth and every second: it is here, under this nonce, holds a slot or not, is io_bound or not, and
  /// what it reserves.
  reacts_to<atom::open_atom, inhash, nonce, bool, bool, capacity, lock_watcher_actor>,
  /// From WORKER: its slot is free from now on.
  reacts_to<atom::ended_atom, inhash, fence>,
  /// From the node, before it stops: begin no more builds, and give back those that run. Answered when none does.
  replies_to<atom::stop_atom>::with<ledger::done>,
  // INTERNAL: it was written down whether the machine is drained, or not, and measured
  reacts_to<atom::drain_atom, std::uint64_t, machine_room, caf::error>,
  // INTERNAL: the journal of kept outputs was read, or not
  reacts_to<atom::partials_atom, std::uint64_t, partial_outputs, caf::error>,
  // INTERNAL: measure what the machine has left
  reacts_to<atom::poll_atom>,
  // INTERNAL: it was measured, or not
  reacts_to<atom::done_atom, machine_room, caf::error>,
  // INTERNAL: offer what became free
  reacts_to<atom::offer_atom>,
  // INTERNAL: repeat the offer
  reacts_to<atom::tick_atom>>;

/// What WORKER_POOLs of any node may say to an ALLOCATOR.
using offers_actor = caf::typed_actor<
  /// From WORKER_POOL, repeated.
  reacts_to<atom::offer_atom, offer, assignee_actor>>;

/// Matches queued jobs with free, fitting slots.
using allocator_actor = offers_actor::extend<
  /// From GRAPH, repeated while the job is queued: find a worker for it. Answered at once; the assignment is seen by
  /// the row's change to building.
  replies_to<atom::place_atom, job, graph_actor>::with<ledger::done>,
  /// From GRAPH, repeated: what another graph placed is wanted here, too, and maybe sooner.
  reacts_to<atom::place_atom, lend>,
  /// From GRAPH: not wanted any more.
  reacts_to<atom::withdraw_atom, withdraw>,
  /// What waits, in order, and why.
  replies_to<atom::queue_atom, get_queue>::with<job_queue>,
  /// The machines that offer themselves.
  replies_to<atom::nodes_atom, get_nodes>::with<node_statuses>,
  /// Where a job waits, and why each machine does not take it.
  replies_to<atom::explain_atom, placing_query>::with<placing>,
  // INTERNAL: forget offers that were not repeated
  reacts_to<atom::tick_atom>>;

/// Makes inputs present and pinned in the local store, each once.
using fetcher_actor = caf::typed_actor<
  /// Fetches the closure of these paths and pins it, or names the paths that no store has.
  replies_to<atom::fetch_atom, std::vector<nix::store_path>>::with<fetched>,
  /// From WORKER_POOL: the closure of these may be wanted soon.
  reacts_to<atom::prefetch_atom, prefetch>,
  // INTERNAL: everything an order wants is here and pinned, or not
  reacts_to<atom::done_atom, std::uint64_t, fetched, caf::error>>;

/// What FETCHERs of members may say to the SUBSTITUTER of the hub.
using upstream_actor = caf::typed_actor<
  /// Answered when all that upstream caches have of these, and of their closures, is in the farm's store.
  replies_to<atom::import_atom, upstream_wanted>::with<ledger::done>>;

/// Asks upstream binary caches, and takes over what they have.
using substituter_actor = upstream_actor::extend<
  /// Which of these paths do they have? Answered when each is known, or was asked for often enough.
  replies_to<atom::find_atom, std::vector<nix::store_path>>::with<upstream_paths>,
  /// Fetches the closure of these outputs into the farm's store and commits them. Answered when that is durable;
  /// `unavailable` if no cache gives one of the paths, `conflict` if somebody else holds the lock.
  replies_to<atom::substitute_atom, substitution>::with<ledger::done>,
  // INTERNAL: the caches answered
  reacts_to<atom::done_atom, std::uint64_t, upstream_paths, bool>,
  // INTERNAL: ask again for what is unknown
  reacts_to<atom::tick_atom, std::uint64_t>>;

/// Puts paths of this machine's store into the farm's store.
using importer_actor = caf::typed_actor<
  /// These paths, which are valid here, and all that they refer to; what the ledger knows is left out. Answered when all
  /// are durable and published.
  replies_to<atom::import_atom, std::vector<nix::store_path>>::with<ledger::done>,
  // INTERNAL: a path was packed, or not
  reacts_to<atom::packed_atom, path_info, caf::error>,
  // INTERNAL: its blob was put, or not
  reacts_to<atom::stored_atom, nix::store_path, caf::error>,
  // INTERNAL: narinfos were published, or not
  reacts_to<atom::done_atom, std::uint64_t, caf::error>>;

/// Carries one job under one token from start to commit.
using worker_actor = lock_watcher_actor::extend<
  /// From EXECUTOR.
  reacts_to<atom::exited_atom, build_exit>,
  /// From EXECUTOR: what the builder is seen to use.
  reacts_to<atom::progress_atom, build_look>,
  /// From WORKER_POOL: the machine is about to stop, for this reason. A build that runs is given back.
  reacts_to<atom::stop_atom, std::string>,
  /// Give up the built outputs, if they are held under this token; stale otherwise.
  replies_to<atom::drop_atom, fence>::with<ledger::done>,
  /// From STORE_UPLOADER: all outputs are known: hashes, references, sizes. Answered once they are registered in the
  /// local store and in the journal of kept outputs; an error (a wrong fixed output, say) ends the upload.
  replies_to<atom::packed_atom, packed_outputs>::with<ledger::done>,
  /// From STORE_UPLOADER: the outputs break a rule, or cannot be read.
  reacts_to<atom::failed_atom, failure, std::string>,
  /// From STORE_UPLOADER: every blob is durably in the store, under the generation given.
  reacts_to<atom::stored_atom, packed_outputs>,
  /// From STORE_UPLOADER: the store refused; it goes on trying.
  reacts_to<atom::failed_atom, caf::error>,
  // INTERNAL: a piece of blocking work ended, or not
  reacts_to<atom::done_atom, std::uint64_t, caf::error>,
  /// From LOG_RELAY: what the log says.
  reacts_to<atom::progress_atom, step_progress>,
  // INTERNAL
  reacts_to<atom::tick_atom>>;

/// Owns one builder's process tree and guarantees that none of it outlives its leave.
using executor_actor = caf::typed_actor<
  /// End the build: TERM, then KILL after the grace time; `exited` follows.
  reacts_to<atom::stop_atom, failure, std::string>,
  /// It may run until then: lease_term::until_ms.
  reacts_to<atom::extend_atom, std::int64_t>,
  // INTERNAL: its watchdog froze it, or let it go on after so many milliseconds
  reacts_to<atom::frozen_atom>,
  reacts_to<atom::frozen_atom, std::int64_t>,
  // INTERNAL: the process ended
  reacts_to<atom::exited_atom, build_exit>,
  // INTERNAL: look at what it uses
  reacts_to<atom::tick_atom>,
  // INTERNAL: what it was seen to use, or why nobody could look
  reacts_to<atom::done_atom, build_look, caf::error>>;

/// Carries a build's output to its log file and tells the phase and the last line.
using log_relay_actor = caf::typed_actor<
  /// Bytes of output, in order; answered by a credit to the process loop once written.
  reacts_to<atom::output_atom, std::string>,
  /// The build is over: answers with the log's last lines (at most log_tail_bytes_max) once all is written.
  replies_to<atom::done_atom>::with<std::string>,
  // INTERNAL: a piece was written, or not
  reacts_to<atom::stored_atom, std::uint64_t, caf::error>>;

/// Packs one attempt's outputs and puts them into the store, durably, however often it takes.
using store_uploader_actor = caf::typed_actor<
  /// Try now instead of after the pause.
  reacts_to<atom::retry_atom>,
  // INTERNAL: the pause after this try is over
  reacts_to<atom::tick_atom, std::uint64_t>,
  // INTERNAL: packing ended
  reacts_to<atom::packed_atom, packed_outputs, caf::error>,
  // INTERNAL: putting ended
  reacts_to<atom::stored_atom, packed_outputs, caf::error>>;

/// Publishes what the ledger says is realised, until it is.
using publisher_actor = caf::typed_actor<
  /// From LEDGER.
  reacts_to<atom::changed_atom, ledger::changed>,
  // INTERNAL: scan the outbox
  reacts_to<atom::tick_atom>,
  // INTERNAL: the documents of one inhash are in the store, or not
  reacts_to<atom::stored_atom, ledger::lock_state, caf::error>>;

/// What other nodes may say to CACHE_SERVER.
using tickets_actor = caf::typed_actor<
  /// A ticket that lets a node use the farm's store for a while.
  replies_to<atom::open_atom, get_ticket>::with<upload_ticket>>;

/// Serves the binary cache and logs over HTTP, and takes uploads of clients.
using cache_server_actor = tickets_actor::extend<
  /// The base URL, once it listens.
  replies_to<atom::get_atom>::with<std::string>,
  /// A ticket that lets its bearer upload sources and closures for a while.
  replies_to<atom::open_atom, caller>::with<std::string>>;

/// Whoever is told what builds are doing: OBSERVATORY, of any node.
using progress_actor = caf::typed_actor<
  /// From workers and their log relays.
  reacts_to<atom::progress_atom, step_progress>>;

/// Knows the status of every actor and what every build is doing; restarts nobody.
using observatory_actor = progress_actor::extend<
  /// Tell this graph of the progress of that inhash.
  reacts_to<atom::follow_atom, inhash, graph_actor>,
  /// The tree of this node.
  replies_to<atom::tree_atom, caller, get_tree>::with<actor_tree>,
  /// End an actor, so that an operator can rehearse. Role admin.
  replies_to<atom::kill_atom, caller, kill_actor>::with<ledger::done>,
  /// The history of attempts.
  replies_to<atom::attempts_atom, caller, ledger::read_attempts>::with<ledger::attempt_rows>,
  /// The locks that are held.
  replies_to<atom::locks_atom, caller, ledger::held_locks>::with<ledger::lock_states>,
  /// How long builds of these names took.
  replies_to<atom::durations_atom, caller, ledger::read_durations>::with<ledger::durations>,
  /// What failed.
  replies_to<atom::failures_atom, caller, ledger::read_failures>::with<ledger::failure_rows>,
  /// Forget what failed. Role admin.
  replies_to<atom::forget_atom, caller, ledger::forget_failures>::with<ledger::done>,
  /// What happened since; waits for news up to wait_ms.
  replies_to<atom::events_atom, caller, follow_events>::with<event_page>,
  // INTERNAL: something happened
  reacts_to<atom::changed_atom>,
  // INTERNAL: answer who waits for events and has something to hear, or has waited long enough
  reacts_to<atom::output_atom>>;

/// Accepts a request only after it is durable, and tells its clients how it goes.
using gateway_actor = caf::typed_actor<
  /// What this node is.
  replies_to<atom::info_atom, caller, get_info>::with<node_info>,
  /// What must be uploaded before these can be submitted. Role submitter.
  replies_to<atom::missing_atom, caller, find_missing>::with<missing>,
  /// Accept a request, durably (INV-6). Role submitter.
  replies_to<atom::submit_atom, caller, submit_request>::with<accepted>,
  /// Follow a request by long polls.
  replies_to<atom::poll_atom, caller, poll_request>::with<request_progress>,
  /// Which requests are there?
  replies_to<atom::status_atom, caller, get_requests>::with<request_summaries>,
  /// Cancel a request; its own client, or an admin.
  replies_to<atom::cancel_atom, caller, cancel_request>::with<accepted>,
  /// Where a log is.
  replies_to<atom::log_atom, caller, find_log>::with<log_place>,
  // INTERNAL: answer polls of requests that have no graph yet
  reacts_to<atom::output_atom>,
  // INTERNAL: requests whose client left
  reacts_to<atom::tick_atom>>;

/// Answers operators out of other actors' data, and passes on their orders.
using inspector_actor = caf::typed_actor<
  /// Jobs that wait for a machine.
  replies_to<atom::queue_atom, caller, get_queue>::with<job_queue>,
  /// Machines.
  replies_to<atom::nodes_atom, caller, get_nodes>::with<node_statuses>,
  /// Drain or undrain a machine. Role admin.
  replies_to<atom::drain_atom, caller, drain_node>::with<ledger::done>,
  /// Outputs that are built and not committed.
  replies_to<atom::partials_atom, caller, get_partials>::with<partial_outputs>,
  /// Upload them now. Role admin.
  replies_to<atom::retry_atom, caller, retry_partial>::with<ledger::done>,
  /// Give them up. Role admin.
  replies_to<atom::drop_atom, caller, drop_partial>::with<ledger::done>,
  /// This path is lost; answers what was known of it. Role admin.
  replies_to<atom::gone_atom, caller, mark_gone>::with<path_info>,
  /// Why it is not built yet.
  replies_to<atom::explain_atom, caller, explain_query>::with<explanation>,
  // INTERNAL: who has not answered this question by now is waited for no longer
  reacts_to<atom::tick_atom, std::uint64_t>,
  // INTERNAL: a piece of blocking work ended, or not
  reacts_to<atom::done_atom, std::uint64_t, caf::error>>;

/// Carries calls of other machines to actors, and their answers back; owns every ZeroMQ socket.
using bridge_actor = caf::typed_actor<
  /// Its endpoint, e.g. "tcp://127.0.0.1:5000", once it is bound.
  replies_to<atom::get_atom>::with<std::string>,
  // INTERNAL: the socket thread is bound there
  reacts_to<atom::done_atom, std::string>,
  // INTERNAL: the socket thread ended: die
  reacts_to<atom::failed_atom, caf::error>,
  // INTERNAL: tell what it is doing
  reacts_to<atom::tick_atom>>;

} // namespace coppice
