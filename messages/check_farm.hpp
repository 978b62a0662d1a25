#pragma once

#include "messages/admin.hpp"
#include "messages/client.hpp"
#include "messages/ledger.hpp"
#include "messages/pipeline.hpp"

/// What must hold of what one node says to another besides that it decodes (INV-14). Nodes hold keys and are trusted to
/// say what is true (reliability.md 2); these keep a broken one from harming others. All fail with `bad_message`.
namespace coppice {

inline constexpr std::size_t names_per_offer_max = 1'000;  ///< systems and features that a machine offers, each
inline constexpr std::size_t prefetch_inputs_max = 10'000; ///< that a job names
inline constexpr std::size_t url_bytes_max = 2'000;
inline constexpr std::uint32_t slots_max = 100'000; ///< of one machine
inline constexpr std::uint32_t cores_max = 1'000'000; ///< likewise

expected<void> check(const ledger::transaction& m);
expected<void> check(const ledger::answer& m);
expected<void> check(const ledger::changed& m);
expected<void> check(const ledger::done& m);
expected<void> check(const watch_ledger& m);
expected<void> check(const offer& m);
expected<void> check(const job& m);
expected<void> check(const partial_outputs& m);
expected<void> check(const step_progress& m);
expected<void> check(const get_ticket& m);
expected<void> check(const upload_ticket& m);
expected<void> check(const prefetch& m);
expected<void> check(const upstream_wanted& m);

} // namespace coppice
