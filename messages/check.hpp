#pragma once

#include "messages/admin.hpp"
#include "messages/client.hpp"
#include "messages/ledger.hpp"

/// What must hold of a message from another machine besides that it decodes (INV-14): counts, ranges, names. One
/// overload per message that a handler with a `caller` takes; runtime/exposed.hpp does not compile without it. All
/// fail with `bad_message` and name the field.
namespace coppice {

inline constexpr std::size_t roots_max = 1000;           ///< in one request
inline constexpr std::size_t outputs_per_root_max = 100; ///< named in one root
inline constexpr std::int32_t priority_max = 1000;       ///< and its negative is the least
inline constexpr std::uint32_t rows_max = 1000;          ///< in one answer that lists something
inline constexpr std::size_t actor_path_bytes_max = 255;
inline constexpr std::size_t node_name_bytes_max = 255;

expected<void> check(const get_info& m);
expected<void> check(const find_missing& m);
expected<void> check(const submit_request& m);
expected<void> check(const poll_request& m);
expected<void> check(const get_requests& m);
expected<void> check(const cancel_request& m);
expected<void> check(const find_log& m);
expected<void> check(const get_tree& m);
expected<void> check(const kill_actor& m);
expected<void> check(const follow_events& m);
expected<void> check(const ledger::read_attempts& m);
expected<void> check(const ledger::read_failures& m);
expected<void> check(const ledger::forget_failures& m);
expected<void> check(const ledger::held_locks& m);
expected<void> check(const ledger::read_durations& m);
expected<void> check(const get_queue& m);
expected<void> check(const get_nodes& m);
expected<void> check(const drain_node& m);
expected<void> check(const get_partials& m);
expected<void> check(const retry_partial& m);
expected<void> check(const drop_partial& m);
expected<void> check(const mark_gone& m);
expected<void> check(const explain_query& m);

} // namespace coppice
